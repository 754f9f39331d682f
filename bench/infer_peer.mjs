/* infer_peer.mjs -- llama.cpp (node-llama-cpp) on a GGUF file, measured as infer_bench asks.
 *
 *   node bench/infer_peer.mjs FILE PROMPT STEPS THREADS
 * An empty line says that it has loaded.  Each line of stdin is a prompt, token ids separated by
 * commas; the answer is a JSON line for reading it, one for STEPS greedy tokens after it, and an
 * empty line.  node_modules lie beside
 * the package.json of PEER_DIR (default build/interop, which `make interop` fills). */
import path from "node:path";
import readline from "node:readline";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const dir = path.resolve(process.env.PEER_DIR ?? "build/interop");
const require = createRequire(path.join(dir, "package.json"));
const {getLlama, LlamaLogLevel} =
    await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const [file, prompt, steps, threads] = process.argv.slice(2);

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error,
                              maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
const context = await model.createContext({
    contextSize: Number(prompt) + Number(steps) + 1, batchSize: 512, sequences: 1,
    threads: {ideal: Number(threads), min: Number(threads)}
});
const sequence = context.getSequence();

const measured = async (what, tokens, work) => {
    const cpu = process.cpuUsage(), start = process.hrtime.bigint();
    await work();
    const wall = Number(process.hrtime.bigint() - start) / 1e9, used = process.cpuUsage(cpu);
    process.stdout.write(JSON.stringify({
        who: "llama.cpp", what, tokens, wall_s: wall, cpu_s: (used.user + used.system) / 1e6
    }) + "\n");
};

process.stdout.write("\n"); // loaded
const lines = readline.createInterface({input: process.stdin});
for await (const line of lines) {
    const ids = line.split(",").map(Number);
    await sequence.clearHistory();
    await measured("prefill", ids.length, () => sequence.controlledEvaluate(
        ids.map((t, i) => i + 1 < ids.length ? t : [t, {generateNext: {token: true}}])));
    const last = ids[ids.length - 1];
    let n = 0;
    await measured("decode", Number(steps), async () => {
        for await (const _ of sequence.evaluate([last], {temperature: 0, yieldEogToken: true}))
            if (++n === Number(steps)) break;
    });
    process.stdout.write("\n");
}
await llama.dispose();
