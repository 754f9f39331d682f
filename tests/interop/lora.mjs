/* lora.mjs -- a base in GGUF and an adapter in GGUF, through stock llama.cpp, against our
 * logits of both merged.
 *
 *   node lora.mjs DIR ADAPTER:BASE...     files as mkmodel and quantize --adapter write them
 * Also without the adapter, which must show: an adapter that llama.cpp passed over would
 * otherwise look well.  Prints a line a pair and a closing count. */
import fs from "node:fs";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(path.join(process.cwd(), "package.json"));
const {getLlama, LlamaLogLevel} =
    await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const BOUND = 1e-4; /* largest |difference| / RMS, at every position */

const floats = file => {
    const b = fs.readFileSync(file);
    return new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.length));
};

async function logits(model, tokens, vocab, lora) {
    const context = await model.createContext({
        contextSize: 512, batchSize: 512, sequences: 1, threads: 1, flashAttention: false,
        experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32",
        ...(lora ? {lora} : {})
    });
    const items = await context.getSequence().controlledEvaluate(
        tokens.map(t => [t, {generateNext: {logits: true}}]));
    const out = new Float32Array(tokens.length * vocab);
    items.forEach((item, i) => {
        for (const [token, logit] of item.next.logits) out[i * vocab + token] = logit;
    });
    await context.dispose();
    return out;
}

/* Largest difference over RMS of any position. */
function apart(ours, theirs, positions) {
    const vocab = ours.length / positions;
    let worst = 0;
    for (let i = 0; i < positions; i++) {
        let square = 0, most = 0;
        for (let v = i * vocab; v < (i + 1) * vocab; v++) {
            const d = Math.abs(ours[v] - theirs[v]);
            square += ours[v] * ours[v];
            if (!(d <= most)) most = d;
        }
        const rel = most / Math.sqrt(square / vocab);
        if (!(rel <= worst)) worst = rel;
    }
    return worst;
}

const [dir, ...pairs] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
let passed = 0, failed = 0;
for (const pair of pairs) {
    const [name, base] = pair.split(":");
    const tokens = fs.readFileSync(path.join(dir, `${name}.tokens`), "utf8").trim().split(",")
        .map(Number);
    const ours = floats(path.join(dir, `${name}.logits`)), vocab = ours.length / tokens.length;
    const model = await llama.loadModel({modelPath: path.join(dir, `${base}.F32.gguf`),
                                         gpuLayers: 0});
    const file = path.join(dir, `${name}.gguf`);
    const withIt = apart(ours, await logits(model, tokens, vocab, file), tokens.length);
    const without = apart(ours, await logits(model, tokens, vocab), tokens.length);
    await model.dispose();
    const ok = withIt <= BOUND && without > 100 * BOUND;
    console.log(`${ok ? "ok  " : "FAIL"} ${name.padEnd(16)} on ${base.padEnd(14)} ` +
                `${withIt.toExponential(1)} (without the adapter ${without.toExponential(1)})`);
    ok ? passed++ : failed++;
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
await llama.dispose();
process.exit(failed ? 1 : 0);
