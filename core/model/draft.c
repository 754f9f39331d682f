/* draft.c -- load a draft model: one whose token ids mean what the model's mean. */
#include "model/model.h"

#include <string.h>

static bool same_pieces(const cm_spm *a, const cm_spm *b, int *where) {
    for (*where = 0; *where < cm_spm_vocab(a); ++*where) {
        cm_piece_type ta, tb;
        float score;
        const char *pa = cm_spm_piece(a, *where, &score, &ta);
        const char *pb = cm_spm_piece(b, *where, &score, &tb);
        if (strcmp(pa, pb)) return false;
    }
    return true;
}

static bool same_vocabulary(const cm_loaded *draft, const cm_loaded *of, cm_err *err) {
    int64_t n = draft->model.conf.vocab_size, want = of->model.conf.vocab_size;
    int where;
    if (n != want)
        return cm_fail(err, CM_EXIT_USAGE, "%s: a draft model with %lld tokens in its "
                       "vocabulary, but the model has %lld", draft->path, (long long)n,
                       (long long)want);
    if (!draft->spm || !of->spm) return true; /* ids are all there is */
    if (cm_spm_vocab(draft->spm) != cm_spm_vocab(of->spm))
        return cm_fail(err, CM_EXIT_USAGE, "%s: a draft model whose tokenizer has %d pieces, "
                       "but the model's has %d", draft->path, cm_spm_vocab(draft->spm),
                       cm_spm_vocab(of->spm));
    if (same_pieces(draft->spm, of->spm, &where)) return true;
    float score;
    cm_piece_type type;
    return cm_fail(err, CM_EXIT_USAGE, "%s: a draft model of another vocabulary: token %d is "
                   "'%s', the model's is '%s'", draft->path, where,
                   cm_spm_piece(draft->spm, where, &score, &type),
                   cm_spm_piece(of->spm, where, &score, &type));
}

bool cm_draft_load(cm_loaded *draft, const char *path, const cm_loaded *of, unsigned flags,
                   cm_err *err) {
    return cm_load(draft, path, CM_LOAD_UNNAMED | flags, err) && same_vocabulary(draft, of, err);
}
