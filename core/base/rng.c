/* rng.c -- counter-based random numbers: Philox4x32-10.
 *
 * J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.  The key is
 * made from seed and purpose, the counter from (index, step), so element i of a stream
 * needs no state.  Normals use M. Wichura's algorithm AS 241 (Applied Statistics 37,
 * 1988) with a logarithm in plain arithmetic; sqrt is exact by IEEE 754.  The same bits
 * come out on every CPU. */
#include "base/base.h"

#include <math.h>
#include <string.h>

/* The finalizer of SplitMix64: spreads neighbouring seeds over the key space. */
static uint64_t mix64(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

cm_rng cm_rng_make(uint64_t seed, uint32_t purpose, uint64_t step) {
    uint64_t key = mix64(mix64(seed + 0x9E3779B97F4A7C15u) + purpose);
    return (cm_rng){{key, step}};
}

uint64_t cm_rng_u64(cm_rng r, uint64_t i) {
    uint32_t c0 = (uint32_t)i, c1 = (uint32_t)(i >> 32);
    uint32_t c2 = (uint32_t)r.key[1], c3 = (uint32_t)(r.key[1] >> 32);
    uint32_t k0 = (uint32_t)r.key[0], k1 = (uint32_t)(r.key[0] >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

double cm_rng_uniform(cm_rng r, uint64_t i) {
    return (double)(cm_rng_u64(r, i) >> 11) * 0x1p-53;
}

/* Multiply-shift of a 64-bit word: the bias is below n / 2^64, far under anything a
 * sample could show, and one element costs one word whatever n is. */
uint64_t cm_rng_below(cm_rng r, uint64_t i, uint64_t n) {
    CM_ASSERT(n >= 1, "cm_rng_below: empty range");
    __extension__ typedef unsigned __int128 u128;
    return (uint64_t)(((u128)cm_rng_u64(r, i) * n) >> 64);
}

/* log(x) for normal x in (0,1): exponent by bits, mantissa in [1/sqrt2, sqrt2) by the
 * series of 2 atanh((m-1)/(m+1)); relative error below 1e-15. */
static double plain_log(double x) {
    uint64_t b;
    memcpy(&b, &x, 8);
    int e = (int)(b >> 52) - 1023;
    b = (b & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
    double m;
    memcpy(&m, &b, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 27; k >= 3; k -= 2)
        sum = (sum + 1.0 / k) * s2;
    return e * 0.693147180559945309417 + 2 * (s + s * sum);
}

static double poly7(const double c[8], double x) {
    double y = c[7];
    for (int i = 6; i >= 0; i--)
        y = y * x + c[i];
    return y;
}

/* Coefficients of AS 241, routine PPND16: numerator and denominator of three ranges. */
static const double as241[6][8] = {
    {3.3871328727963666080, 1.3314166789178437745e+2, 1.9715909503065514427e+3,
     1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
     3.3430575583588128105e+4, 2.5090809287301226727e+3},
    {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
     2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4,
     5.2264952788528545610e+3},
    {1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
     3.64784832476320460504, 1.27045825245236838258, 2.41780725177450611770e-1,
     2.27238449892691845833e-2, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9},
    {6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7},
    {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
     1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
     1.42151175831644588870e-7, 2.04426310338993978564e-15},
};

double cm_rng_normal(cm_rng r, uint64_t i) {
    /* Odd multiples of 2^-54: never 0 or 1, exact in double below one half, and
     * symmetric, so p and 1-p are both reached. */
    uint64_t k = cm_rng_u64(r, i) >> 11;
    bool upper = k >> 52;
    uint64_t tail = upper ? 0x1FFFFFFFFFFFFFu - k : k; /* < 2^52 */
    double p = (2.0 * (double)tail + 1.0) * 0x1p-54;   /* in (0, 1/2) */
    double q = 0.5 - p, x;
    if (q <= 0.425) {
        double t = 0.180625 - q * q;
        x = q * poly7(as241[0], t) / poly7(as241[1], t);
    } else {
        double t = sqrt(-plain_log(p));
        int row = t <= 5.0 ? 2 : 4;
        t -= t <= 5.0 ? 1.6 : 5.0;
        x = poly7(as241[row], t) / poly7(as241[row + 1], t);
    }
    return upper ? x : -x;
}
