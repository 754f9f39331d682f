/* greedy.mjs -- continue a prompt with llama.cpp, always taking the likeliest token.
 *
 *   node greedy.mjs MODEL.gguf PROMPT N     in a folder with node_modules; prints the text */
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(path.join(process.cwd(), "package.json"));
const {getLlama, LlamaLogLevel} =
    await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const [file, prompt, count] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
const context = await model.createContext({
    contextSize: 512, batchSize: 512, sequences: 1, flashAttention: false,
    experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"
});
const sequence = context.getSequence();
const tokens = [model.tokens.bos, ...model.tokenize(prompt, false)];
const out = [];
for await (const token of sequence.evaluate(tokens, {temperature: 0, yieldEogToken: true})) {
    if (model.isEogToken(token)) break;
    out.push(token);
    if (out.length >= Number(count)) break;
}
console.log(model.detokenize(out, false, tokens));
await llama.dispose();
process.exit(0);
