# hybrid-rows.awk -- rows of key-value pairs for hybrid.sh (MQAR): distinct keys, each followed by its
# value, then keys again, drawn with replacement, each with its value.  A word is a syllable: 16 are
# keys, 16 are values.  `items` pairs a row in all, of which `pairs` (a list: one of it, drawn) come
# first.  ask=1: JSON lines for a task, the pairs and one of the keys, whose value is asked.
# usage: awk -v seed=S -v rows=N -v pairs=2,4,8 -v items=32 -v ask=0 -f hybrid-rows.awk
function draw(n) { return int(rand() * n) + 1 }
function shuffle(x, n,   i, j, t) {
    for (i = n; i > 1; i--) { j = draw(i); t = x[i]; x[i] = x[j]; x[j] = t }
}
BEGIN {
    srand(seed)
    c = "bdfghjklmnprstvz"
    for (i = 1; i <= 16; i++)
        for (j = 1; j <= 5; j++) word[++n] = substr(c, i, 1) substr("aeiou", j, 1)
    sizes = split(pairs, size, ",")
    for (r = 1; r <= rows; r++) {
        shuffle(word, 16) # keys stay keys
        row = ""
        n_pairs = size[draw(sizes)]
        for (i = 1; i <= items; i++) {
            key = word[i <= n_pairs ? i : draw(n_pairs)]
            if (i <= n_pairs) value[key] = word[16 + draw(16)]
            else if (ask) break
            row = row " " key " " value[key]
        }
        if (ask)
            printf "{\"row\":\"%s %s\",\"value\":\"%s\"}\n", row, key, value[key]
        else
            printf "{\"text\":\"%s\"}\n", row
    }
}
