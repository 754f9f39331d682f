/* conf_priv.h -- what the files of conf/ share with each other and with nobody else. */
#ifndef CM_CONF_PRIV_H
#define CM_CONF_PRIV_H

#include "conf/conf.h"

enum { CM_MAX_KEYS = 512, CM_MAX_SECTIONS = 32 };

/* Where a value or a mistake stands: a file with line and column from 1, the command
 * line (line 0), or nowhere (file NULL: the default). */
typedef struct cm_place {
    const char *file;
    int line, col;
} cm_place;

struct cm_conf_state {
    bool used[CM_MAX_SECTIONS];
    cm_place origin[CM_MAX_KEYS];
    char **pool; /* strings that values and places point to */
    size_t n_pool, cap_pool;
    cm_buf errors;
    int n_errors;
};

#define CM_COMMAND_LINE "command line"

/* Record one mistake (at most CM_CONF_MAX_ERRORS are kept). */
void cm_conf_complain(cm_conf *c, cm_place at, const char *fmt, ...) CM_PRINTF(3, 4);
/* A copy that lives as long as the configuration. */
const char *cm_conf_keep(cm_conf *c, const char *s, size_t n);
int cm_conf_index(const cm_key *k);
const cm_section *cm_conf_section(const char *name);
const cm_key *cm_conf_key_in(const cm_section *s, const char *name);
/* Complain about a key that does not exist; section NULL: the top level. */
void cm_conf_unknown(cm_conf *c, cm_place at, const cm_section *s, const char *name);
/* "file:1:2", "command line" or "default". */
void cm_place_text(cm_place at, cm_buf *out);

/* Parse, check and store; complains where it cannot.  `quoted`: YAML quotes stood
 * around the text, which makes it text and nothing else. */
void cm_conf_put(cm_conf *c, const cm_key *k, cm_place at, const char *text, size_t n,
                 bool quoted);
void cm_conf_put_list(cm_conf *c, const cm_key *k, cm_place at, const char **items,
                      int n);
/* A YAML flow list: "[a, 'b c']". */
void cm_conf_put_flow(cm_conf *c, const cm_key *k, cm_place at, const char *text);
/* The value as YAML writes it. */
void cm_conf_value_text(const cm_conf *c, const cm_key *k, cm_buf *out);

#define CM_FIELD(c, k, type) (*(type *)(void *)((char *)(c) + (k)->at))
#define CM_CFIELD(c, k, type) (*(const type *)(const void *)((const char *)(c) + (k)->at))

#endif
