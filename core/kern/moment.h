/* moment.h -- inside kern/: what the reference and the vector versions of AdamW's narrow
 * moments share: constants of the random bits and of the codes (core/train/moment.c). */
#ifndef CM_KERN_MOMENT_H
#define CM_KERN_MOMENT_H

#include <stdint.h>

#define CM_NOISE_STEP 0x9e3779b9u
#define CM_NOISE_1 0x7feb352du
#define CM_NOISE_2 0x846ca68bu

/* The bits of 2^(-k/8) as a float. */
static const uint32_t cm_eighth[8] = { 0x3f800000, 0x3f6ac0c7, 0x3f5744fd, 0x3f45672a,
                                       0x3f3504f3, 0x3f25fed7, 0x3f1837f0, 0x3f0b95c2 };
/* Mantissas [i,i+1) 2^20 hold that of one power 2^(j/8), j = i+1: where it begins; the last
 * hold none. */
static const uint32_t cm_eighth_from[8] = { 0x0b95c2, 0x1837f0, 0x25fed7, 0x3504f3,
                                            0x45672a, 0x5744fd, 0x6ac0c7, 0x800000 };

#endif
