/* adapter.h -- adapters (LoRA) as files: PEFT's adapter_config.json and
 * adapter_model.safetensors; private to model/.
 *
 * PEFT's tensor for module M is base_model.model.M.lora_A.weight [r,I], lora_B [O,r].  Of
 * experts, M is ...block_sparse_moe.experts, A [E*r,I] (row e*r + k) and B [O,r*E] (column
 * k*E + e); where both of its matrices have adapters, those of gate_up_proj belong to
 * M.base_layer, for PEFT wraps them one around the other.  That is PEFT from 0.19 on
 * transformers 5; of older files (input_linear and output_linear as modules of their own,
 * and for experts the two matrices changed in roles) reading knows the layouts too.
 * What PEFT has no place for stands in the safetensors header: chimera.base_sha256,
 * chimera.base_relative (path from this folder), chimera.base_dtype. */
#ifndef CM_MODEL_ADAPTER_H
#define CM_MODEL_ADAPTER_H

#include "model/files.h"

#define CM_ADAPTER_CONFIG "adapter_config.json"
#define CM_ADAPTER_WEIGHTS "adapter_model.safetensors"
#define CM_PEFT_PREFIX "base_model.model."

typedef struct cm_adapter {
    cm_lora_conf conf; /* rank, alpha, rslora, dropout, base; no targets */
    char *dir, *base;  /* base: as written in the config, or NULL */
    cm_st st;
    bool *used;        /* [st.n] */
} cm_adapter;
bool cm_adapter_open(cm_adapter *a, const char *dir, cm_err *err);
void cm_adapter_close(cm_adapter *a);
/* Where its base is: the path in the config, absolute or from the current directory; else
 * from the adapter's own folder (free()).  NULL: a sentence with CM_EXIT_DATA. */
char *cm_adapter_base(const cm_adapter *a, cm_err *err);
/* Is this (SHA-256) what it was trained on?  Says so when the file does not tell. */
bool cm_adapter_suits(const cm_adapter *a, const char *base, const char *id, cm_err *err);
/* The pair of parameter p as a[..,r,I] b[..,O,r]; false: it has none.  a NULL only asks. */
bool cm_adapter_pair(cm_adapter *a, const cm_param *p, cm_real *A, cm_real *B);
/* Into the adapters that m has, all of them; or added to m's weights. */
bool cm_adapter_fill(cm_adapter *a, cm_model *m, cm_err *err);
bool cm_adapter_merge(cm_adapter *a, cm_model *m, cm_err *err);
/* Adapters for just the parameters that the file knows, filled; strings on `arena`, which has
 * at least cm_adapter_bytes. */
size_t cm_adapter_bytes(const cm_adapter *a, const cm_model *m);
bool cm_adapter_attach(cm_adapter *a, cm_model *m, cm_arena *arena, cm_err *err);

#endif
