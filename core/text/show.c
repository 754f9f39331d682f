/* show.c -- tokens with masks as a person reads them. */
#include "text/text.h"

#include <string.h>

/* How a run of one mask begins and ends, plain and in colour. */
static const struct { const char *open, *close, *colour; } styles[] = {
    { "", "", "\x1b[2m" }, { "[[", "]]", "\x1b[32m" }, { "((", "))", "\x1b[33m" },
};
static const char bold[] = "\x1b[1m", reset[] = "\x1b[0m";

static bool is_control(const cm_spm *spm, int id) {
    cm_piece_type type;
    cm_spm_piece(spm, id, NULL, &type);
    return type == CM_PIECE_CONTROL;
}

/* Does the text begin with the name of a control token? */
static bool spelled(const cm_spm *spm, const char *s, size_t n) {
    char name[32];
    const char *close = s[0] == '<' ? memchr(s, '>', n < 31 ? n : 31) : NULL;
    if (!close) return false;
    snprintf(name, sizeof name, "%.*s", (int)(close + 1 - s), s);
    int id = cm_spm_id(spm, name);
    return id >= 0 && is_control(spm, id);
}

/* Text for a terminal: line breaks show, control characters cannot act. */
static void put_text(const cm_spm *spm, const cm_buf *text, cm_buf *out) {
    for (size_t i = 0; i < text->n; i++) {
        unsigned char c = (unsigned char)text->s[i];
        if (spelled(spm, text->s + i, text->n - i)) cm_buf_add(out, "<\\", 2);
        else if (c == '\n') cm_buf_addf(out, "\xE2\x8F\x8E\n");
        else if (c == '\t' || (c >= 0x20 && c != 0x7f)) cm_buf_add(out, &c, 1);
        else cm_buf_addf(out, "<0x%02X>", c);
    }
}

/* Ids [from, to) of one mask. */
static void put_run(const cm_spm *spm, const int32_t *id, int64_t n, bool colour,
                    const char *back, cm_buf *out) {
    cm_buf text = { 0 };
    for (int64_t i = 0; i < n; i++) {
        bool control = is_control(spm, id[i]);
        if (!control) cm_spm_token_bytes(spm, id[i], &text);
        if (!control && i + 1 < n) continue;
        if (text.n) put_text(spm, &text, out);
        text.n = 0;
        if (!control) break;
        cm_buf_addf(out, "%s%s%s%s", colour ? bold : "",
                    cm_spm_piece(spm, id[i], NULL, NULL), colour ? reset : "", back);
    }
    cm_buf_free(&text);
}

void cm_masked_show(const cm_spm *spm, const int32_t *id, const uint8_t *mask, int64_t n,
                    bool colour, cm_buf *out) {
    int end = cm_spm_id(spm, "<|end|>");
    for (int64_t i = 0, k; i < n; i = k) {
        bool turn_ends = false;
        for (k = i; k < n && mask[k] == mask[i] && !turn_ends; k++) turn_ends = id[k] == end;
        const char *back = colour ? styles[mask[i]].colour : "";
        cm_buf_addf(out, "%s", colour ? back : styles[mask[i]].open);
        put_run(spm, id + i, k - i, colour, back, out);
        cm_buf_addf(out, "%s", colour ? reset : styles[mask[i]].close);
        if (turn_ends && k < n) cm_buf_addf(out, "\n");
    }
}
