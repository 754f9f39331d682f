/* chat.mjs -- the GGUF file's own chat template through another Jinja engine and llama.cpp's
 * tokenizer, against the ids of `tokenize`.
 *
 *   node chat.mjs MODEL.gguf CASES.jsonl OURS.jsonl     node_modules in the current directory
 * OURS.jsonl: `tokenize head --json` over the cases.  Where a text spells control tokens (cases
 * named spelled_...) the two must differ: a rendered template cannot tell text from control. */
import fs from "node:fs";
import path from "node:path";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const require = createRequire(path.join(process.cwd(), "package.json"));
const load = name => import(pathToFileURL(require.resolve(name)).href);
const {getLlama, LlamaLogLevel} = await load("node-llama-cpp");
const {Template} = await load("@huggingface/jinja");

const lines = file => fs.readFileSync(file, "utf8").trim().split("\n").map(l => JSON.parse(l));
const [file, casesFile, oursFile] = process.argv.slice(2);
const cases = lines(casesFile), ours = lines(oursFile);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
const metadata = model.fileInfo.metadata.tokenizer;
const template = new Template(metadata.chat_template);
const bos = metadata.ggml.tokens[metadata.ggml.bos_token_id];
const eot = metadata.ggml.tokens[metadata.ggml.eot_token_id];
let passed = 0, failed = 0;

const report = (ok, name, what) => {
    if (ok) passed++; else failed++;
    console.log(`${ok ? "ok  " : "FAIL"} chat ${name}: ${what}`);
};

report(cases.length === ours.length && cases.length > 10, "cases", `${cases.length}`);
report(eot === "<|end|>" && model.isEogToken(metadata.ggml.eot_token_id), "end of turn",
       `${eot} ends generation in llama.cpp`);
cases.forEach(({name, messages}, i) => {
    const text = template.render({messages, bos_token: bos, add_generation_prompt: false});
    const theirs = model.tokenize(text, true), same = theirs.join() === ours[i].ids.join();
    const spelled = name.startsWith("spelled_");
    report(same !== spelled, name, `${ours[i].ids.length} ids ` +
        (same ? "equal" : spelled ? "differ: the text spells control tokens"
                                  : `differ\n  ours   ${ours[i].ids}\n  theirs ${theirs}`));
    const asked = template.render({messages: messages.slice(0, -1), bos_token: bos,
                                   add_generation_prompt: true});
    if (!spelled)
        report(text.startsWith(asked), `${name}, to be answered`, "is how the whole begins");
});
await model.dispose();
await llama.dispose();
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed ? 1 : 0);
