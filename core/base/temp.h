/* temp.h -- temporary names of outputs that are being written; private to base/. */
#ifndef CM_BASE_TEMP_H
#define CM_BASE_TEMP_H

/* Create "PATH.PID.tmp", locked while it is open, and note it for cm_temps_drop.  Those that
 * processes left which no longer live are removed first.  The descriptor, or -1 and errno;
 * *name, to be given to cm_temp_end, is NULL then. */
int cm_temp_open(const char *path, char **name);
/* It has been renamed or removed: forget the name and free it. */
void cm_temp_end(char *name);

#endif
