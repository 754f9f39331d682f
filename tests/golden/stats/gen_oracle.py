#!/usr/bin/env python3
"""gen_oracle.py -- statistics from SciPy, statsmodels and plain definitions.

Prints oracle.txt: cases whose values nobody published, computed here by other means than
eval/stats does: brute-force sums over tables, numerical maximisation of a likelihood,
explicit matrices, adaptive quadrature.
usage: gen_oracle.py > oracle.txt      (SciPy 1.17, statsmodels 0.15)
"""
import itertools
import math

import numpy as np
from scipy import integrate, optimize, special, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

rng = np.random.default_rng(20261121)


def text(x):
    x = float(x)
    return str(int(x)) if x.is_integer() and abs(x) < 1e15 else repr(x)


def case(name, groups, result, tol=None):
    groups = [np.atleast_1d(g) for g in groups]
    left = " ; ".join(" ".join(map(text, g)) for g in groups)
    right = " ".join(map(text, np.atleast_1d(result)))
    print(f"{name} : {left} = {right}" + (f" ~ {tol}" if tol else ""))


def distributions():
    for z in (-37, -8.5, -3, -1e-3, 0, 0.7, 2, 6):
        case("norm_cdf", [z], stats.norm.cdf(z))
    for p in (1e-300, 1e-20, 1e-5, 0.025, 0.3, 0.5, 0.8, 0.999999):
        case("norm_quantile", [p], stats.norm.ppf(p))
    for t, df in ((-40, 3), (-2.5, 1), (-1.3, 2.7), (0, 5), (0.4, 9), (2.2, 29.5), (5, 1e6)):
        case("t_cdf", [[t, df]], stats.t.cdf(t, df))
    for p, df in ((1e-6, 4), (0.005, 9), (0.05, 2.3), (0.2, 1), (0.975, 14), (0.95, 1e5)):
        case("t_quantile", [[p, df]], stats.t.ppf(p, df))
    for t, df, d in ((1.5, 4, 1), (2.7, 19, 2.5), (-1, 9, 0.5), (2, 199, 3), (1.7, 1, 0.3)):
        case("nct_cdf", [[t, df, d]], stats.nct.cdf(t, df, d), 1e-7)
    for x, a, b in ((0.2, 0.5, 0.5), (0.01, 2, 300), (0.5, 1e4, 1.01e4), (0.999, 40, 0.3),
                    (1e-5, 1, 9), (0.3, 3e5, 7e5)):
        case("beta_cdf", [[x, a, b]], special.betainc(a, b, x), 1e-10)
    for p, a, b in ((0.025, 18, 3), (0.5, 0.7, 2), (1e-8, 3, 3), (0.999, 500, 2), (0.05, 1, 133)):
        case("beta_quantile", [[p, a, b]], special.betaincinv(a, b, p), 1e-10)
    for k, n, p in ((0, 10, 0.3), (7, 20, 0.5), (480, 1000, 0.5), (3, 100000, 1e-4),
                    (66500, 67000, 0.99)):
        case("binom", [[k, n, p]], [stats.binom.pmf(k, n, p), stats.binom.cdf(k, n, p)], 1e-10)
    for q, n, p in ((0.025, 30, 0.5), (0.9, 1000, 0.07), (0.5, 5, 0.2), (1e-9, 400, 0.5)):
        case("binom_quantile", [[q, n, p]], stats.binom.ppf(q, n, p))


def tango_z(b, c, n, theta):
    """Score statistic from the profile likelihood, maximised numerically."""
    if theta in (-1, 1):
        return math.copysign(math.inf, -theta)
    lo, hi = max(0, -theta), (1 - theta) / 2

    def loss(q):
        def part(k, p):
            return 0 if k == 0 else -k * math.log(p) if p > 0 else 1e300
        return part(b, q + theta) + part(c, q) + part(n - b - c, 1 - 2 * q - theta)
    q = optimize.minimize_scalar(loss, bounds=(lo, hi), method="bounded",
                                 options={"xatol": 1e-14}).x
    best = min((lo, hi, q), key=loss)
    v = n * (2 * best + theta - theta * theta)
    d = b - c - n * theta
    return d / math.sqrt(v) if v > 0 else (0 if d == 0 else math.copysign(math.inf, d)), best


def tango():
    for b, c, n, th in ((12, 2, 50, 0.1), (3, 9, 100, -0.02), (0, 4, 60, 0.05), (30, 31, 400, 0.02),
                        (5, 5, 20, 0.3)):
        z, q = tango_z(b, c, n, th)
        case("tango_z", [[b, c, n, th]], [z, q], 1e-6)
    for b, c, n in ((12, 2, 50), (0, 0, 133), (7, 3, 200), (44, 60, 1000)):
        ends = []
        for z in (1.959963984540054, -1.959963984540054):
            ends.append(optimize.brentq(lambda th: max(-50, min(50, tango_z(b, c, n, th)[0])) - z,
                                        -0.999, 0.999, xtol=1e-12))
        case("tango", [[b, c, n, 0.95]], ends, 1e-5)
    # The exact tail at the restricted estimate, by summing over all tables.
    for b, c, n, th in ((0, 0, 60, 0.05), (1, 2, 80, 0.06), (3, 1, 50, 0.1)):
        z, q = tango_z(b, c, n, th)
        p = 0.0
        for i in range(n + 1):
            for j in range(n + 1 - i):
                if tango_z(i, j, n, th)[0] <= z + 1e-7:
                    p += stats.multinomial.pmf([i, j, n - i - j], n, [q + th, q, 1 - 2 * q - th])
        case("tango_p", [[b, c, n, th]], p, 1e-5)


def means():
    d = rng.normal(0.3, 1, 25)
    t = stats.ttest_1samp(d, 0)
    case("paired_t_p", [d], t.pvalue)
    # Cluster-robust errors by explicit matrices: OLS on a constant, CR1 from statsmodels,
    # CR2 and Bell-McCaffrey degrees of freedom from their definition.
    for sizes in ([4, 3, 2, 5, 6], [1] * 9, [10, 10, 10, 10], [30, 1, 2, 3, 5, 8]):
        g = np.repeat(np.arange(len(sizes)), sizes)
        x = rng.normal(0, 1, len(g)) + rng.normal(0, 1, len(sizes))[g]
        n, G = len(x), len(sizes)
        fit = OLS(x, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": g, "df_correction": True})
        cr1 = fit.bse[0]
        H = np.full((n, n), 1 / n)
        e = (np.eye(n) - H) @ x
        v, cols = 0.0, []
        for k in range(G):
            i = np.flatnonzero(g == k)
            B = np.eye(len(i)) - H[np.ix_(i, i)]
            w, U = np.linalg.eigh(B)
            A = U @ np.diag([1 / math.sqrt(a) if a > 1e-12 else 0 for a in w]) @ U.T
            v += (np.ones(len(i)) @ A @ e[i]) ** 2 / n ** 2
            sel = np.zeros((n, len(i)))
            sel[i, range(len(i))] = 1
            cols.append((np.eye(n) - H) @ sel @ A @ np.ones(len(i)) / n)
        M = np.array(cols) @ np.array(cols).T
        lam = np.linalg.eigvalsh(M)
        df = lam.sum() ** 2 / (lam ** 2).sum()
        sums = [x[g == k].sum() for k in range(G)]
        case("cluster_cr2", [sums, sizes], [x.mean(), cr1, math.sqrt(v), df], 1e-9)
    s = np.round(rng.normal(0.2, 1, 12), 1)
    s[3] = 0
    sums = np.array([np.dot(p, s) for p in itertools.product((1, -1), repeat=12)])
    seen = s.sum()
    case("signflip_p", [s], [(sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean(),
                             (abs(sums) >= abs(seen) - 1e-9).mean()])


def ranks():
    d = np.round(rng.normal(0.3, 1, 30), 6)
    for side, i in (("less", 0), ("greater", 1)):
        case("wilcoxon_side", [d, i], stats.wilcoxon(d, alternative=side, method="exact").pvalue)
    for nx, ny, digits, shift in ((9, 9, 6, 0.8), (9, 12, 6, -0.3), (15, 9, 1, 0.5), (60, 70, 6, 0.1)):
        x = np.round(rng.normal(0, 1, nx) + shift, digits)
        y = np.round(rng.normal(0, 1, ny), digits)
        exact = digits == 6 and nx <= 50
        how = "exact" if exact else "asymptotic"
        r = [stats.mannwhitneyu(x, y, alternative=a, method=how) for a in ("less", "greater", "two-sided")]
        case("mann_whitney", [x, y], [r[0].statistic] + [k.pvalue for k in r] + [exact], 1e-9)
        diff = np.sort(np.subtract.outer(x, y).ravel())
        if exact:  # order statistics by brute force over the exact distribution
            u = np.zeros(nx * ny + 1)
            u[0] = 1
            for i in range(1, nx + 1):  # Gaussian binomial: multiply and divide polynomials
                u = np.convolve(u, [1] + [0] * (ny + i - 1) + [-1])[: nx * ny + 1]
                for k in range(i, nx * ny + 1):
                    u[k] += u[k - i]
            cdf = np.cumsum(u) / u.sum()
            k = int((cdf <= 0.025).sum())
            case("hodges_lehmann", [x, y], [np.median(diff), diff[k - 1], diff[nx * ny - k]])


def many():
    p = rng.uniform(0, 1, 12) ** 3
    for ours, theirs in (("holm", "holm"), ("bh", "fdr_bh"), ("by", "fdr_by")):
        case(ours, [p], multipletests(p, method=theirs)[1])


def power():
    for n, d, a, s in ((12, 0.5, 0.05, "two-sided"), (50, 0.3, 0.01, "larger"), (400, 0.1, 0.05, "larger")):
        case("power_t", [[n, d, a, 2 if s == "two-sided" else 1]],
             TTestPower().power(d, n, a, alternative=s), 1e-8)
    for delta, sd, a, pw in ((0.5, 1, 0.05, 0.8), (0.1, 0.7, 0.01, 0.9)):
        case("n_t", [[delta, sd, a, pw]],
             math.ceil(TTestPower().solve_power(delta / sd, None, a, pw, alternative="larger")))
    for n, pb, pc, a in ((100, 0.1, 0.03, 0.05), (300, 0.03, 0.01, 0.005), (50, 0.2, 0, 0.05)):
        total = 0.0
        for m in range(1, n + 1):
            tail = stats.binom.sf(np.arange(m + 1) - 1, m, 0.5)  # P[X >= b]
            hit = np.flatnonzero(tail <= a)
            if len(hit):
                total += stats.binom.pmf(m, n, pb + pc) * stats.binom.sf(hit[0] - 1, m, pb / (pb + pc))
        case("power_mcnemar", [[n, pb, pc, a]], total, 1e-6)


def sequential():
    for b, c, n, th in ((3, 10, 200, 0), (2, 6, 500, 0.02), (12, 8, 1000, 0.03), (0, 0, 400, 0.01)):
        def wealth(s):
            return (1 + s * th) ** (n - b - c) * (1 + s * (1 + th)) ** c * (1 - s * (1 - th)) ** b
        top = 1 / (1 - th)
        pts = np.linspace(0, top, 60)
        v = sum(integrate.quad(wealth, lo, hi, epsabs=0, epsrel=1e-12)[0] for lo, hi in zip(pts, pts[1:]))
        case("e_bet", [[b, c, n, th]], v / top, 1e-8)
    for z, t, rho2 in ((2.5, 100, 0.05), (0.3, 500, 0.01), (-1, 50, 0.1), (4.5, 1000, 0.004)):
        # Mixture of likelihood ratios exp(m S - m^2 t / 2) over a half-normal prior on m.
        s = z * math.sqrt(t)
        f = lambda m: math.exp(m * s - m * m * t / 2) * 2 * stats.norm.pdf(m, 0, math.sqrt(rho2))
        top = 12 * math.sqrt(rho2)
        v = sum(integrate.quad(f, lo, hi, epsrel=1e-12)[0]
                for lo, hi in zip(np.linspace(0, top, 41), np.linspace(0, top, 41)[1:]))
        case("e_mean", [[z, t, rho2]], v, 1e-8)


def others():
    for k, n in ((0, 30), (30, 30), (7, 11), (250, 1000)):
        case("clopper", [[k, n]], proportion_confint(k, n, 0.05, "beta"), 1e-9)
    rel = [0, 1, 0, 1, 1, 0, 0, 1]
    # recall@5, precision@5, reciprocal rank, average precision with 6 relevant in all
    case("retrieval", [rel, 6, 5], [3 / 6, 3 / 5, 1 / 2, (1 / 2 + 2 / 4 + 3 / 5 + 4 / 8) / 6])
    conf = np.round(rng.uniform(0.2, 1, 200), 3)
    right = (rng.uniform(0, 1, 200) < conf).astype(int)
    edges = np.linspace(0, 1, 16)
    bins = np.clip(np.searchsorted(edges, conf - 1e-9) - 1, 0, 14)
    gaps = [(abs(right[bins == k].mean() - conf[bins == k].mean()), (bins == k).mean())
            for k in range(15) if (bins == k).any()]
    case("ece", [conf, right, 15], [sum(g * w for g, w in gaps), max(g for g, _ in gaps),
                                    ((conf - right) ** 2).mean()])


print("# oracle.txt -- printed by gen_oracle.py; the form is that of published.txt.")
for part in (distributions, tango, means, ranks, many, power, sequential, others):
    part()
