/* op_list.h -- every op, one line each, in the order a block uses them.
 * Readers: cm_ops[] in tape.c, and through it the gradient check, the profile, docs. */
OP(embed)
OP(linear)
OP(rmsnorm)
OP(attention)
OP(conv_silu)
OP(ssd)
OP(gated_norm)
OP(residual)
OP(swiglu)
OP(moe)
OP(xent)
OP(sum)
