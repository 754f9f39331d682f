/* spm.cc -- SentencePiece behind a C interface: the project's one C++ file.
 *
 * No exception leaves a function here.  What the library does not tell (types of pieces,
 * flags of the normaliser) comes from the model's bytes, which are checked by our own
 * reader before the library sees them.
 *
 * Speed: BPE merges never cross a place where no piece can (see find_cuts), so text falls
 * into words whose ids do not depend on their surroundings, and each thread remembers the
 * ids of the words it met.  Memory does not grow with the document. */
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

extern "C" {
#include "text/spm_proto.h"
}

namespace {
const int kOther = 128, kClasses = 129; /* see class_at */
const char kSpace[] = "\xE2\x96\x81"; /* U+2581, what a space becomes inside */

/* Words and their ids, direct-mapped: a later word takes an earlier one's place. */
struct WordCache {
    static const size_t kKey = 40, kIds = 12, kSlots = 1 << 15;
    struct Entry {
        uint32_t owner; /* serial number of the tokenizer; 0 = empty */
        uint16_t len, n;
        char key[kKey]; /* padded with zeros */
        int32_t id[kIds];
    };
    Entry slot[kSlots];
};
thread_local std::unique_ptr<WordCache> cache;
std::atomic<uint32_t> last_serial{ 0 };
} // namespace

struct cm_spm {
    sentencepiece::SentencePieceProcessor sp;
    std::string proto;
    char hash[65];
    cm_spm_model m;
    uint32_t serial = ++last_serial; /* names the owner of cached words */
    bool can_cut;
    /* [a][b]: some piece has a character of class b right behind one of class a. */
    bool joined[kClasses][kClasses];
    ~cm_spm() { cm_spm_proto_free(&m); }
};

/* The class of the character that starts at p: an ASCII character is its own, U+2581 is
 * a space, all others share one. */
static int class_at(const char *p, const char *end) {
    unsigned char c = static_cast<unsigned char>(*p);
    if (c < 0x80) return c;
    return end - p >= 3 && !memcmp(p, kSpace, 3) ? ' ' : kOther;
}

/* The class of the character that ends before p. */
static int class_before(const char *p, const char *begin) {
    unsigned char c = static_cast<unsigned char>(p[-1]);
    if (c < 0x80) return c;
    return p - begin >= 3 && !memcmp(p - 3, kSpace, 3) ? ' ' : kOther;
}

static bool starts_character(char c) { return (c & 0xC0) != 0x80; }

/* A merge makes a piece, so no merge crosses a place whose two neighbours stand side by
 * side in no piece: text may be cut there, and the parts encoded apart. */
static void find_cuts(cm_spm *s) {
    const cm_spm_model &m = s->m;
    s->can_cut = m.model_type == 2 && m.identity && m.escape_whitespaces &&
                 !m.remove_extra_whitespaces && !m.suffix_whitespace;
    s->joined[kOther][kOther] = true;
    for (int i = 0; i < m.n; i++) {
        const cm_spm_entry &e = m.piece[i];
        if (e.type == CM_PIECE_UNKNOWN || e.type == CM_PIECE_CONTROL ||
            e.type == CM_PIECE_BYTE)
            continue;
        for (const char *p = e.text + 1; p < e.text + e.n; p++)
            if (starts_character(*p))
                s->joined[class_before(p, e.text)][class_at(p, e.text + e.n)] = true;
    }
}

static bool load(cm_spm *s, const char *name, cm_err *err) {
    if (!cm_spm_proto_read(&s->m, s->proto.data(), s->proto.size(), name, err)) return false;
    const auto status = s->sp.LoadFromSerializedProto(s->proto);
    if (!status.ok())
        return cm_fail(err, CM_EXIT_DATA, "%s: %s", name, status.ToString().c_str());
    cm_sha_bytes(s->proto.data(), s->proto.size(), s->hash);
    find_cuts(s);
    return true;
}

static cm_spm *open_named(const char *name, const void *proto, size_t n, cm_err *err) {
    cm_spm *s = nullptr;
    try {
        s = new cm_spm();
        s->proto.assign(static_cast<const char *>(proto), n);
        if (load(s, name, err)) return s;
    } catch (const std::exception &e) {
        cm_fail(err, CM_EXIT_DATA, "%s: %s", name, e.what());
    }
    delete s;
    return nullptr;
}

extern "C" cm_spm *cm_spm_open_bytes(const void *proto, size_t n, cm_err *err) {
    return open_named("tokenizer", proto, n, err);
}

extern "C" cm_spm *cm_spm_open(const char *path, cm_err *err) {
    char *bytes;
    size_t n;
    if (!cm_read_file(path, size_t(1) << 28, &bytes, &n, err)) return nullptr;
    cm_spm *s = open_named(path, bytes, n, err);
    free(bytes);
    return s;
}

extern "C" void cm_spm_close(cm_spm *s) { delete s; }

extern "C" const void *cm_spm_proto(const cm_spm *s, size_t *n) {
    *n = s->proto.size();
    return s->proto.data();
}

extern "C" const char *cm_spm_hash(const cm_spm *s) { return s->hash; }
extern "C" int cm_spm_vocab(const cm_spm *s) { return s->m.n; }
extern "C" int cm_spm_bos(const cm_spm *s) { return s->sp.bos_id(); }
extern "C" int cm_spm_eos(const cm_spm *s) { return s->sp.eos_id(); }
extern "C" int cm_spm_unk(const cm_spm *s) { return s->sp.unk_id(); }
extern "C" int cm_spm_pad(const cm_spm *s) { return s->sp.pad_id(); }
extern "C" bool cm_spm_add_dummy_prefix(const cm_spm *s) { return s->m.add_dummy_prefix; }

extern "C" const char *cm_spm_piece(const cm_spm *s, int i, float *score,
                                    cm_piece_type *type) {
    CM_ASSERT(i >= 0 && i < s->m.n, "piece %d of %d", i, s->m.n);
    if (score) *score = s->m.piece[i].score;
    if (type) *type = s->m.piece[i].type;
    return s->m.piece[i].text;
}

extern "C" int cm_spm_id(const cm_spm *s, const char *piece) {
    try {
        int id = s->sp.PieceToId(piece);
        return strcmp(s->m.piece[id].text, piece) ? -1 : id;
    } catch (...) {
        return -1;
    }
}

/* ---- encoding ---- */

/* Whether text t[0,n) may be cut before t[c], 0 < c < n.  Where the tokenizer puts a
 * dummy prefix before each part, only a space can make way for it. */
static bool can_cut(const cm_spm *s, const char *t, size_t n, size_t c) {
    if (s->m.add_dummy_prefix && t[c] != ' ') return false;
    return starts_character(t[c]) &&
           !s->joined[class_before(t + c, t)][class_at(t + c, t + n)];
}

/* The largest cut up to `want`, else the first one behind it, else n. */
static size_t find_cut(const cm_spm *s, const char *t, size_t n, size_t want) {
    if (want >= n || !s->can_cut) return n;
    for (size_t c = want; c > 0; c--)
        if (can_cut(s, t, n, c)) return c;
    for (size_t c = want + 1; c < n; c++)
        if (can_cut(s, t, n, c)) return c;
    return n;
}

extern "C" size_t cm_spm_cut(const cm_spm *s, const char *text, size_t n, size_t want) {
    return s->m.add_dummy_prefix ? n : find_cut(s, text, n, want);
}

struct Ids { /* the caller's growing array */
    int32_t **out;
    int64_t *n, *cap;
    template <class T> void add(const T *id, size_t count) {
        int64_t need = *n + static_cast<int64_t>(count);
        if (need > *cap) {
            *cap = need + need / 2 + 64;
            *out = static_cast<int32_t *>(realloc(*out, size_t(*cap) * sizeof **out));
            if (!*out) throw std::bad_alloc();
        }
        for (size_t i = 0; i < count; i++) (*out)[(*n)++] = id[i];
    }
};

/* Where the word that starts at t[0] ends. */
static size_t word_end(const cm_spm *s, const char *t, size_t n) {
    for (size_t c = 1; s->can_cut && c < n; c++)
        if (can_cut(s, t, n, c)) return c;
    return n;
}

static WordCache::Entry *find_word(const cm_spm *s, const char *t, size_t n, bool *hit) {
    char key[WordCache::kKey] = { 0 };
    memcpy(key, t, n);
    uint64_t h = s->serial * 0x9E3779B97F4A7C15u + n, part;
    for (size_t i = 0; i < n; i += 8) {
        memcpy(&part, key + i, 8);
        h = (h ^ part) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    if (!cache) cache.reset(new WordCache());
    WordCache::Entry *e = &cache->slot[h % WordCache::kSlots];
    *hit = e->owner == s->serial && e->len == n && !memcmp(e->key, key, sizeof key);
    if (!*hit) {
        e->owner = 0;
        e->len = static_cast<uint16_t>(n);
        memcpy(e->key, key, sizeof key);
    }
    return e;
}

static bool encode_word(const cm_spm *s, const char *t, size_t n, std::vector<int> *tmp,
                        Ids *ids, cm_err *err) {
    WordCache::Entry *e = nullptr;
    if (n <= WordCache::kKey) {
        bool hit;
        e = find_word(s, t, n, &hit);
        if (hit) {
            ids->add(e->id, e->n);
            return true;
        }
    }
    tmp->clear();
    const auto status = s->sp.Encode({ t, n }, tmp);
    if (!status.ok())
        return cm_fail(err, CM_EXIT_FAIL, "tokenizer: %s", status.ToString().c_str());
    ids->add(tmp->data(), tmp->size());
    if (e && tmp->size() <= WordCache::kIds) {
        e->n = static_cast<uint16_t>(tmp->size());
        std::copy(tmp->begin(), tmp->end(), e->id);
        e->owner = s->serial;
    }
    return true;
}

extern "C" bool cm_spm_encode(const cm_spm *s, const char *text, size_t n, int32_t **out,
                              int64_t *n_out, int64_t *cap, cm_err *err) {
    try {
        Ids ids = { out, n_out, cap };
        std::vector<int> tmp;
        while (n > 0) {
            size_t c = word_end(s, text, n);
            /* With a dummy prefix the space after the cut is dropped: the prefix that
             * the library puts before the next word takes its place. */
            size_t drop = c < n && s->m.add_dummy_prefix;
            if (drop && c + 1 == n) c = n, drop = 0;
            if (!encode_word(s, text, c, &tmp, &ids, err)) return false;
            text += c + drop;
            n -= c + drop;
        }
        return true;
    } catch (const std::exception &e) {
        return cm_fail(err, CM_EXIT_RESOURCE, "tokenizer: %s", e.what());
    }
}

/* The library alone, without cuts and cache: what tests compare with. */
extern "C" bool cm_spm_encode_whole(const cm_spm *s, const char *text, size_t n,
                                    int32_t **out, int64_t *n_out, int64_t *cap,
                                    cm_err *err) {
    std::vector<int> tmp;
    const auto status = s->sp.Encode({ text, n }, &tmp);
    if (!status.ok())
        return cm_fail(err, CM_EXIT_FAIL, "tokenizer: %s", status.ToString().c_str());
    Ids{ out, n_out, cap }.add(tmp.data(), tmp.size());
    return true;
}

/* ---- decoding ---- */

extern "C" void cm_spm_decode_to(const cm_spm *s, const int32_t *id, int64_t n, cm_buf *out) {
    std::string text;
    try {
        std::vector<int> ids(id, id + n);
        for (int i : ids) CM_ASSERT(i >= 0 && i < s->m.n, "token %d of %d", i, s->m.n);
        const auto status = s->sp.Decode(ids, &text);
        CM_ASSERT(status.ok(), "decode: %s", status.ToString().c_str());
    } catch (const std::exception &e) {
        cm_panic(__FILE__, __LINE__, "decode: %s", e.what());
    }
    cm_buf_add(out, text.data(), text.size());
}

extern "C" char *cm_spm_decode(const cm_spm *s, const int32_t *id, int64_t n) {
    cm_buf out = { nullptr, 0, 0 };
    cm_spm_decode_to(s, id, n, &out);
    return out.s;
}

extern "C" void cm_spm_token_bytes(const cm_spm *s, int id, cm_buf *out) {
    CM_ASSERT(id >= 0 && id < s->m.n, "token %d of %d", id, s->m.n);
    const cm_spm_entry &e = s->m.piece[id];
    if (e.type == CM_PIECE_CONTROL) return;
    if (e.type == CM_PIECE_BYTE) {
        char b = static_cast<char>(cm_spm_byte(&e));
        cm_buf_add(out, &b, 1);
        return;
    }
    if (e.type == CM_PIECE_UNKNOWN) {
        cm_buf_add(out, " \xE2\x81\x87 ", 5); /* SentencePiece's unk surface */
        return;
    }
    for (const char *p = e.text; *p;) {
        bool space = !strncmp(p, kSpace, 3);
        cm_buf_add(out, space ? " " : p, 1);
        p += space ? 3 : 1;
    }
}

/* ---- training: the library's part, called in the child process ---- */

namespace {
/* The lines of a file; a long line comes in parts, cut before a space where there is one
 * and never inside a character. */
class Lines : public sentencepiece::SentenceIterator {
  public:
    explicit Lines(FILE *f) : f_(f) { Next(); }
    ~Lines() override { free(line_); }
    bool done() const override { return done_; }
    const std::string &value() const override { return value_; }
    sentencepiece::util::Status status() const override { return {}; }
    void Next() override {
        if (at_ == len_ && !read()) {
            done_ = true;
            return;
        }
        size_t n = len_ - at_;
        if (n > kMax) {
            n = kMax;
            while (n > 1 && line_[at_ + n] != ' ') n--;
            if (n == 1) n = kMax;
            while (n > 1 && (line_[at_ + n] & 0xC0) == 0x80) n--;
        }
        value_.assign(line_ + at_, n);
        at_ += n;
    }

  private:
    static const size_t kMax = 4000; /* bytes */
    bool read() {
        for (;;) {
            ssize_t n = getline(&line_, &cap_, f_);
            if (n < 0) return false;
            if (n && line_[n - 1] == '\n') n--;
            at_ = 0;
            len_ = static_cast<size_t>(n);
            if (n) return true;
        }
    }
    FILE *f_;
    char *line_ = nullptr;
    size_t cap_ = 0, at_ = 0, len_ = 0;
    std::string value_;
    bool done_ = false;
};
} // namespace

extern "C" bool cm_spm_train_here(const cm_spm_train_conf *c, FILE *in, cm_buf *proto,
                                  cm_err *err) {
    try {
        std::string control;
        for (int i = 0; i < c->n_control; i++)
            control += (i ? "," : "") + std::string(c->control[i]);
        Lines lines(in);
        std::string out;
        const auto status = sentencepiece::SentencePieceTrainer::Train(
            { { "model_type", "bpe" },
              { "vocab_size", std::to_string(c->vocab) },
              { "normalization_rule_name", "identity" },
              { "remove_extra_whitespaces", "false" },
              { "add_dummy_prefix", "false" },
              { "byte_fallback", "true" },
              { "split_digits", "true" },
              { "allow_whitespace_only_pieces", "true" },
              { "control_symbols", control },
              { "unk_id", "0" }, { "bos_id", "1" }, { "eos_id", "2" }, { "pad_id", "-1" },
              { "max_sentence_length", "1000000" },
              { "num_threads", std::to_string(c->threads) } },
            &lines, &out);
        if (!status.ok())
            return cm_fail(err, CM_EXIT_USAGE, "%s", status.ToString().c_str());
        cm_buf_add(proto, out.data(), out.size());
        return true;
    } catch (const std::exception &e) {
        return cm_fail(err, CM_EXIT_RESOURCE, "%s", e.what());
    }
}
