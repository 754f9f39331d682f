/* llama.mjs -- stock llama.cpp (through node-llama-cpp) against Chimera's logits, ids, text.
 *
 *   node llama.mjs perplexity MODEL.gguf TEXT     one perplexity; MODEL.ppl.json has ours
 *   node llama.mjs pairs MODEL.gguf ITEMS [DELIMITER]   items of `eval eval.tokens=true` on
 *                                  minimal pairs: ids, log-probability of every token
 *   node llama.mjs types DIR NAME  every NAME.TYPE.gguf of mkmodel types, with NAME.TYPE.logits
 *   node llama.mjs DIR NAME...     files as written by mkmodel; node_modules beside the
 *                                  current directory's package.json
 * Prints a line per model and a closing count; exit status 1 if any bound is broken. */
import fs from "node:fs";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(path.join(process.cwd(), "package.json"));
const {getLlama, LlamaLogLevel} =
    await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const BOUND = 1e-4; /* largest |difference| / RMS, at every position */
const LOGP_BOUND = 1e-4; /* largest |difference| of a token's log-probability, nats */
const TYPE_NMSE = {F16: 1e-4, BF16: 3e-2, Q8_0: 3e-2}; /* of whole files: sanity only */

const ids = file => fs.readFileSync(file, "utf8").trim().split(",").map(Number);

const floats = file => {
    const b = fs.readFileSync(file);
    return new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.length));
};

async function withSequence(llama, file, use) {
    const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
    const context = await model.createContext({
        contextSize: 512, batchSize: 512, sequences: 1, threads: 1, flashAttention: false,
        experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
    });
    try {
        return await use(model, context.getSequence());
    } finally {
        await context.dispose();
        await model.dispose();
    }
}

async function logitsOf(sequence, tokens, vocab) {
    const items = await sequence.controlledEvaluate(
        tokens.map(t => [t, {generateNext: {logits: true}}]));
    const out = new Float32Array(tokens.length * vocab);
    items.forEach((item, i) => {
        for (const [token, logit] of item.next.logits) out[i * vocab + token] = logit;
    });
    return out;
}

async function greedyOf(sequence, tokens, n) {
    await sequence.clearHistory();
    const out = [];
    for await (const token of sequence.evaluate(tokens, {temperature: 0, yieldEogToken: true})) {
        out.push(token);
        if (out.length === n) break;
    }
    return out;
}

/* Largest difference over RMS of any position, and mean square over mean square. */
function compare(ours, theirs, positions) {
    const vocab = ours.length / positions;
    let worst = 0, error = 0, power = 0;
    for (let i = 0; i < positions; i++) {
        let square = 0, most = 0;
        for (let v = i * vocab; v < (i + 1) * vocab; v++) {
            const d = Math.abs(ours[v] - theirs[v]);
            square += ours[v] * ours[v];
            error += d * d;
            if (!(d <= most)) most = d;
        }
        power += square;
        const rel = most / Math.sqrt(square / vocab);
        if (!(rel <= worst)) worst = rel;
    }
    return {worst, nmse: error / power};
}

async function checkModel(llama, dir, name) {
    const file = type => path.join(dir, `${name}.${type}.gguf`);
    const tokens = ids(path.join(dir, `${name}.tokens`));
    const ours = floats(path.join(dir, `${name}.logits`));
    const greedy = ids(path.join(dir, `${name}.greedy`));
    const vocab = ours.length / tokens.length;
    let ok = true;
    const text = await withSequence(llama, file("F32"), async (model, seq) => {
        const {worst} = compare(ours, await logitsOf(seq, tokens, vocab), tokens.length);
        const theirs = await greedyOf(seq, tokens.slice(0, 100), greedy.length);
        const same = theirs.join() === greedy.join();
        ok = worst <= BOUND && same;
        return `${model.typeDescription.padEnd(22)} F32 ${worst.toExponential(1)}, greedy ` +
            (same ? `${greedy.length} equal` : `DIFFERS (${theirs} for ${greedy})`);
    });
    let types = "";
    for (const [type, bound] of Object.entries(TYPE_NMSE))
        await withSequence(llama, file(type), async (model, seq) => {
            const {nmse} = compare(ours, await logitsOf(seq, tokens, vocab), tokens.length);
            ok = ok && nmse <= bound;
            types += `, ${type} nmse ${nmse.toExponential(1)}`;
        });
    console.log(`${ok ? "ok  " : "FAIL"} ${name.padEnd(16)} ${text}${types}`);
    return ok;
}

async function checkTokenizer(llama, dir, name) {
    const lines = fs.readFileSync(path.join(dir, "lines.txt"), "utf8").split("\n").slice(0, -1);
    const want = fs.readFileSync(path.join(dir, "ids.txt"), "utf8").split("\n");
    const model = await llama.loadModel({modelPath: path.join(dir, `${name}.F32.gguf`),
                                         gpuLayers: 0});
    let wrong = 0;
    lines.forEach((line, i) => {
        const got = model.tokenize(line, false).join(" ");
        if (got !== want[i] && wrong++ < 3)
            console.log(`  line ${i + 1}: ${JSON.stringify(line)}\n    ours   ${want[i]}` +
                        `\n    theirs ${got}`);
    });
    await model.dispose();
    console.log(`${wrong ? "FAIL" : "ok  "} tokenizer        ${lines.length} lines, ` +
                `${wrong} differ`);
    return wrong === 0 && lines.length >= 2000;
}

/* Perplexity of a text from llama.cpp's logits, chunked and scored as llama-perplexity does,
 * against what our eval printed (MODEL.ppl.json). */
async function checkPerplexity(llama, file, textFile, name) {
    const ours = JSON.parse(fs.readFileSync(file.replace(/gguf$/, "ppl.json"), "utf8"));
    const text = fs.readFileSync(textFile, "utf8").replace(/\n$/, ""), size = ours.context;
    let nll = 0, count = 0;
    await withSequence(llama, file, async (model, seq) => {
        const tokens = [model.tokens.bos, ...model.tokenize(text, false)];
        const vocab = [...model.iterateAllTokens()].length;
        for (let c = 0; c + size <= tokens.length; c += size) {
            const chunk = [model.tokens.bos, ...tokens.slice(c + 1, c + size)];
            await seq.clearHistory();
            const logits = await logitsOf(seq, chunk, vocab);
            for (let i = size >> 1; i < size - 1; i++, count++) {
                const row = logits.subarray(i * vocab, (i + 1) * vocab);
                const max = row.reduce((a, b) => Math.max(a, b));
                const sum = row.reduce((a, b) => a + Math.exp(b - max), 0);
                nll += Math.log(sum) + max - row[chunk[i + 1]];
            }
        }
    });
    const theirs = Math.exp(nll / count), rel = Math.abs(theirs / ours.perplexity - 1);
    const ok = rel <= 1e-5 && count === ours.scored_tokens && count > 0;
    console.log(`${ok ? "ok  " : "FAIL"} ${name.padEnd(16)} ours ${ours.perplexity.toFixed(4)}, ` +
                `from llama.cpp's logits ${theirs.toFixed(4)}, ${count} tokens`);
    return ok;
}

/* ln p of tokens [first,n) given those before them. */
async function logpOf(seq, token, first, vocab) {
    await seq.clearHistory();
    const logits = await logitsOf(seq, token.slice(0, -1), vocab);
    return token.slice(first).map((id, i) => {
        const row = logits.subarray((first + i - 1) * vocab, (first + i) * vocab);
        const max = row.reduce((a, b) => Math.max(a, b));
        return row[id] - max - Math.log(row.reduce((a, b) => a + Math.exp(b - max), 0));
    });
}

/* What eval kept of minimal pairs (detail.asks) against llama.cpp: the ids of each sentence,
 * the log-probability of each token, their sum, and which of the two is likelier. */
async function checkPairs(llama, file, itemsFile, delimiter, name) {
    const items = fs.readFileSync(itemsFile, "utf8").trim().split("\n").map(l => JSON.parse(l));
    let tokens = 0, otherIds = 0, worst = 0, worstSum = 0, right = 0, otherAcc = 0, nearest = Infinity;
    await withSequence(llama, file, async (model, seq) => {
        const vocab = [...model.iterateAllTokens()].length;
        for (const {scores, detail} of items) {
            const sums = [];
            for (const [k, ask] of detail.asks.entries()) {
                const ids = [model.tokens.bos, ...model.tokenize(delimiter + detail.choices[k], false)];
                if (ids.join() !== ask.token.join()) otherIds++;
                const theirs = await logpOf(seq, ask.token, ask.first, vocab);
                if (theirs.length !== ask.logp.length) worst = NaN;
                theirs.forEach((p, i) => {
                    const d = Math.abs(p - ask.logp[i]);
                    if (!(d <= worst)) worst = d;
                });
                tokens += theirs.length;
                sums.push(theirs.reduce((a, b) => a + b));
                const d = Math.abs(sums[k] - detail.loglik[k]);
                if (!(d <= worstSum)) worstSum = d;
            }
            const acc = sums[0] > sums[1] ? 1 : sums[0] === sums[1] ? 0.5 : 0;
            right += acc;
            nearest = Math.min(nearest, Math.abs(sums[0] - sums[1]));
            if (acc !== scores.acc) otherAcc++;
        }
    });
    const ok = worst <= LOGP_BOUND && worstSum <= 10 * LOGP_BOUND && !otherIds && !otherAcc &&
        items.length >= 200 && tokens > 2 * items.length;
    console.log(`${ok ? "ok  " : "FAIL"} ${name.padEnd(16)} ${items.length} pairs, ${tokens} tokens: ` +
        `log-probabilities ${worst.toExponential(1)}, sums ${worstSum.toExponential(1)} nats; ` +
        `${otherIds} sentences have other ids; acc ${(right / items.length).toFixed(4)}, ` +
        `${otherAcc} differ (closest pair ${nearest.toExponential(1)})`);
    return ok;
}

/* Every type of one model, computed with its blocks.  Both round activations to 8 bits by the same
 * rule, in blocks of 32 (Q8_0, Q8_1) or 256 (Q8_K) by their largest magnitude a: steps of a/127, an
 * error of 5e-5 to 2e-4 of a product's power, 5e-4 in a layer (in, out, gate and up, down).  The
 * same rounding of the same numbers would cancel; but numbers that differ in the last place fall
 * to either side of a tie, one step apart, and from there on the two are on their own: less than
 * one layer's worth is left (ours with float activations measures 5e-4 to 1.4e-3).  A wrong scale
 * or a swapped nibble is above 1e-1. */
const ACTIVATION_NMSE = 5e-4;

async function checkTypes(llama, dir, name) {
    const tokens = ids(path.join(dir, `${name}.tokens`));
    const exact = floats(path.join(dir, `${name}.logits`));
    const vocab = exact.length / tokens.length;
    const types = fs.readdirSync(dir).filter(f => f.startsWith(`${name}.`) && f.endsWith(".logits"))
        .map(f => f.slice(name.length + 1, -".logits".length)).filter(t => t && t !== "logits");
    const results = [];
    for (const type of types.sort())
        await withSequence(llama, path.join(dir, `${name}.${type}.gguf`), async (model, seq) => {
            const ours = floats(path.join(dir, `${name}.${type}.logits`));
            const theirs = await logitsOf(seq, tokens, vocab);
            const {nmse} = compare(ours, theirs, tokens.length);
            const rounding = compare(exact, ours, tokens.length).nmse;
            const ok = nmse <= ACTIVATION_NMSE;
            console.log(`${ok ? "ok  " : "FAIL"} ${type.padEnd(8)} ${model.typeDescription.padEnd(30)} ` +
                `same file nmse ${nmse.toExponential(1)} (at most ${ACTIVATION_NMSE}); ` +
                `against unquantized ${rounding.toExponential(1)}`);
            results.push(ok);
        });
    if (results.length < 13) results.push(false), console.log(`FAIL ${results.length} types`);
    return results;
}

if (process.argv[2] === "types") {
    const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
    const results = await checkTypes(llama, process.argv[3], process.argv[4]);
    await llama.dispose();
    const failed = results.filter(ok => !ok).length;
    console.log(`${results.length - failed} passed, ${failed} failed, 0 skipped`);
    process.exit(failed ? 1 : 0);
}
if (process.argv[2] === "perplexity" || process.argv[2] === "pairs") {
    const [what, file, text, delimiter] = process.argv.slice(2);
    const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
    const ok = what === "pairs" ? await checkPairs(llama, file, text, delimiter ?? "", what)
                                : await checkPerplexity(llama, file, text, what);
    await llama.dispose();
    process.exit(ok ? 0 : 1);
}
const [dir, ...names] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
console.log(`llama.cpp ${llama.llamaCppRelease.release}, bound ${BOUND} of the logits' RMS ` +
            `at every position`);
const results = [await checkTokenizer(llama, dir, names[0])];
for (const name of names) results.push(await checkModel(llama, dir, name));
results.push(await checkPerplexity(llama, path.join(dir, "moe.F32.gguf"),
                                   path.join(dir, "ppl.txt"), "perplexity"));
results.push(await checkPairs(llama, path.join(dir, "moe.F32.gguf"),
                              path.join(dir, "pairs.jsonl"), "", "pairs"));
await llama.dispose();
const failed = results.filter(ok => !ok).length;
console.log(`${results.length - failed} passed, ${failed} failed, 0 skipped`);
process.exit(failed ? 1 : 0);
