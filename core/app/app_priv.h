/* app_priv.h -- what the files of app/ share with each other and with nobody else. */
#ifndef CM_APP_PRIV_H
#define CM_APP_PRIV_H

#include "app/app.h"

/* Options that every tool has, or (run_only) those with a run folder, or (done_too) also those
 * that leave something finished. */
typedef struct cm_shared_opt {
    cm_app_opt opt;
    bool run_only, done_too;
    bool value_optional; /* only as --name=value */
} cm_shared_opt;
/* Whether this tool has it. */
static inline bool cm_shared_opt_of(const cm_app *app, const cm_shared_opt *s) {
    return app->has_run || !s->run_only || (s->done_too && app->has_done);
}
extern const cm_shared_opt cm_shared_opts[];
extern const int cm_n_shared_opts;

/* The text that --help=TOPIC asks for; false: no such topic. */
bool cm_app_topic(const cm_app_ctx *ctx, cm_buf *out);
/* A man(7) page of the tool. */
void cm_app_man(const cm_app_ctx *ctx, cm_buf *out);
/* Fill ctx from argv.  False: a sentence for the user, CM_EXIT_USAGE. */
bool cm_app_parse(cm_app_ctx *ctx, int argc, char **argv, cm_err *err);
/* "chimera-eval" where argv[0] is /usr/bin/chimera-eval. */
const char *cm_app_called(const cm_app_ctx *ctx);
void cm_words_add(cm_words *w, const char *s);

#endif
