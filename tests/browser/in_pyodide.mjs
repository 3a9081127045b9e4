// Runs Python of npple in Pyodide: node in_pyodide.mjs PYODIDE ROOT [PACKAGE...] < source
// Prints one line of JSON: what the source printed, or why the packages cannot be had.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, root, ...packages] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(folder, "pyodide.mjs")));
const lines = [];
const python = await loadPyodide({ stdout: (line) => lines.push(line) });
python.mountNodeFS("/npple", resolve(root));
python.runPython("import sys; sys.path.append('/npple')");
const said = [];
try {
  const quiet = { messageCallback: () => {}, errorCallback: (message) => said.push(message) };
  await python.loadPackage(packages, quiet);
  packages.forEach((name) => python.runPython(`import ${name}`));
} catch (error) {
  const reason = said.at(-1) ?? String(error).trim().split("\n").at(-1);
  console.log(JSON.stringify({ missing: reason.trim().replaceAll("\n", " ") }));
  process.exit(0);
}
python.runPython(readFileSync(0, "utf8"));
console.log(JSON.stringify({ printed: lines.join("\n") }));
