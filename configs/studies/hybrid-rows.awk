# hybrid-rows.awk -- rows of key-value pairs for hybrid.sh: `pairs` keys, each with its value, then
# the keys once more in another order, each with its value again (MQAR).  A word is a syllable:
# 40 are keys, 40 are values.  ask=1: JSON lines for a task, without the last value.
# usage: awk -v seed=S -v rows=N -v pairs=P -v ask=0 -f hybrid-rows.awk
function draw(n) { return int(rand() * n) + 1 }
function shuffle(x, n,   i, j, t) {
    for (i = n; i > 1; i--) { j = draw(i); t = x[i]; x[i] = x[j]; x[j] = t }
}
BEGIN {
    srand(seed)
    c = "bdfghjklmnprstvz"
    for (i = 1; i <= 16; i++)
        for (j = 1; j <= 5; j++) word[++n] = substr(c, i, 1) substr("aeiou", j, 1)
    for (r = 1; r <= rows; r++) {
        shuffle(word, 40) # the first half stays the first
        row = ""
        for (i = 1; i <= pairs; i++) {
            key[i] = word[i]
            value[word[i]] = word[40 + draw(40)]
            row = row " " word[i] " " value[word[i]]
        }
        shuffle(key, pairs)
        for (i = 1; i <= pairs; i++) row = row " " key[i] " " value[key[i]]
        row = substr(row, 2)
        if (ask) {
            sub(/ [a-z]*$/, "", row)
            printf "{\"row\":\"%s\",\"value\":\"%s\"}\n", row, value[key[pairs]]
        } else
            printf "{\"text\":\"%s\"}\n", row
    }
}
