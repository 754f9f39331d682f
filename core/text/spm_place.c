/* spm_place.c -- where the tokenizer is that a path means. */
#include "text/text.h"

#include <stdlib.h>
#include <sys/stat.h>

char *cm_spm_place(const char *path) {
    static const char *const inside[] = { "", "/latest", "/ckpt/latest" };
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) return cm_strf("%s", path);
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        char *file = cm_strf("%s%s/tokenizer.model", path, inside[i]);
        if (cm_exists(file)) return file;
        free(file);
    }
    return cm_strf("%s/tokenizer.model", path);
}
