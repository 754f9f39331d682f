/* spm_kind.c -- is a tokenizer of the one kind that llama.cpp reproduces?
 *
 * Its "llama" tokenizer is SentencePiece's BPE without a normaliser, with byte fallback. */
#include "text/spm_proto.h"

const char *cm_spm_unlike_llama(const cm_spm *s) {
    size_t n;
    const void *proto = cm_spm_proto(s, &n);
    cm_spm_model m;
    cm_err err;
    if (!cm_spm_proto_read(&m, proto, n, "tokenizer", &err)) return "cannot be read";
    const char *why = m.model_type != 2             ? "is not of type BPE"
                      : !m.identity                 ? "normalises its input"
                      : m.remove_extra_whitespaces  ? "removes extra spaces"
                      : !m.escape_whitespaces       ? "does not mark spaces"
                      : m.suffix_whitespace         ? "marks spaces after words"
                      : !m.byte_fallback            ? "has no bytes to fall back on"
                                                    : NULL;
    cm_spm_proto_free(&m);
    return why;
}
