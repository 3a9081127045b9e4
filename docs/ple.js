// PLE in JavaScript, in one file and without packages: forward, backward, losses and Adam by hand.
//
// Written from docs/vectors.md. It runs PLE, CGC, MMoE, ML-MMoE and shared bottom: every model whose
// `architecture` has expert groups, gates and passes. docs/another-language.md explains it.
//
//     node ple.js BUNDLE.json ...      computes every tensor of a bundle: BUNDLE.results.json
//
// A vector is an array of numbers, a matrix an array of rows, a group of experts an array of
// matrices. B is the batch, n the number of experts. All functions are pure but for three: the
// passes put what they make into `t` (tensors) and `grads`, and `adam` changes its state `s`.

"use strict";

// Numbers and matrices ----------------------------------------------------------------------------

// f of each entry of up to three tensors of one shape, as a tensor of that shape.
function each(f, a, b, c) {
  if (!Array.isArray(a)) return f(a, b, c);
  return a.map((part, i) => each(f, part, b && b[i], c && c[i]));
}

const add = (a, b) => each((x, y) => x + y, a, b);
const zeros = (a) => each(() => 0, a);
const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);
const columns = (a) => a[0].map((_, j) => a.map((row) => row[j])); // the transpose
const dot = (a, b) => a.reduce((total, x, i) => total + x * b[i], 0);

function mixed(weights, rows) { // the sum of weights[i] times rows[i]: (n,) (n, width) -> (width,)
  const total = rows[0].map((x) => weights[0] * x);
  for (let i = 1; i < rows.length; i++) {
    for (let j = 0; j < total.length; j++) total[j] += weights[i] * rows[i][j];
  }
  return total;
}

function product(a, b) { // (B, in) (in, out) -> (B, out): each row mixes the rows of b
  if (a[0].length !== b.length) throw new Error(`${a[0].length} columns meet ${b.length} rows`);
  return a.map((row) => mixed(row, b));
}

function softmax(z) { // (n,) -> (n,), for logits of any size
  const top = Math.max(...z);
  const e = z.map((x) => Math.exp(x - top));
  const total = sum(e);
  return e.map((x) => x / total);
}

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

// Layers: each has its forward and its backward -----------------------------------------------------

// Name -> the function, and its derivative by its own output y.
const ACTIVATIONS = {
  relu: [(z) => Math.max(z, 0), (y) => (y > 0 ? 1 : 0)],
  tanh: [Math.tanh, (y) => 1 - y * y],
  sigmoid: [sigmoid, (y) => y * (1 - y)],
  identity: [(z) => z, () => 1],
};

function activation(name) {
  if (!(name in ACTIVATIONS)) throw new Error(`activation ${name}: not in this file`);
  return ACTIVATIONS[name];
}

// The layers NAME/layer1, NAME/layer2, ... of an MLP; those of one expert, where its index is given.
function layersOf(params, name, expert) {
  const pick = (p) => (p === undefined || expert === undefined ? p : p[expert]);
  const layers = [];
  for (let i = 1; `${name}/layer${i}/weight` in params; i++) {
    layers.push({
      W: pick(params[`${name}/layer${i}/weight`]), // (in, out)
      b: pick(params[`${name}/layer${i}/bias`]), // (out,), or undefined
    });
  }
  return layers;
}

// y = f(x W + b), layer by layer: [x, y_1, y_2, ...], each (B, width).
function mlp(layers, activations, x) {
  const made = [x];
  layers.forEach(({ W, b }, i) => {
    const z = product(made[i], W);
    const shifted = b ? z.map((row) => add(row, b)) : z;
    made.push(each(activation(activations[i])[0], shifted));
  });
  return made;
}

// From dL/dy of the last layer: dL/dx, and dL/dW and dL/db of each layer.
function mlpBackward(layers, activations, made, dy) {
  const grads = [];
  for (let i = layers.length - 1; i >= 0; i--) {
    const dz = each((d, y) => d * activation(activations[i])[1](y), dy, made[i + 1]);
    grads[i] = { W: product(columns(made[i]), dz), b: columns(dz).map(sum) };
    dy = product(dz, columns(layers[i].W));
  }
  return { dx: dy, grads };
}

// Adds a gradient to what has arrived before: where ways meet, gradients add up.
function arrive(grads, name, d) {
  grads[name] = add(grads[name], d);
}

function arriveAtLayers(grads, name, layers) { // layers: a list of { W, b }
  layers.forEach(({ W, b }, i) => {
    arrive(grads, `${name}/layer${i + 1}/weight`, W);
    if (`${name}/layer${i + 1}/bias` in grads) arrive(grads, `${name}/layer${i + 1}/bias`, b);
  });
}

// The input: one matrix, or columns side by side -----------------------------------------------------

// The part of each row that a column makes; a row's codes are a number, or a bag with -1 for none.
function columnForward([name, kind], params, inputs) {
  const values = inputs[name];
  if (kind === "numeric") return values.map((v) => [v]);
  const nothing = Array(kind[1]).fill(0);
  return values.map((row) => shares(row, kind[2]).reduce(
    (total, [code, share]) => add(total, params[`embedding/${name}`][code].map((v) => v * share)),
    nothing));
}

function columnBackward([name, kind], inputs, dx, grads) { // dx (B, width of the column)
  if (kind === "numeric") return;
  const table = grads[`embedding/${name}`];
  inputs[name].forEach((row, r) => {
    for (const [code, share] of shares(row, kind[2])) {
      table[code] = add(table[code], dx[r].map((d) => d * share)); // a code may come again
    }
  });
}

// The codes of a row, each with what it counts.
function shares(row, pool) {
  const codes = [row].flat().filter((code) => code >= 0);
  return codes.map((code) => [code, pool === "mean" ? 1 / codes.length : 1]);
}

function inputForward(model, params, inputs) { // -> (B, width)
  if (!Array.isArray(model.inputs)) return inputs.x;
  const parts = model.inputs.map((column) => columnForward(column, params, inputs));
  return parts[0].map((_, r) => parts.map((part) => part[r]).flat());
}

function inputBackward(model, inputs, grads) {
  if (!Array.isArray(model.inputs)) return;
  let start = 0;
  for (const column of model.inputs) {
    const end = start + (column[1] === "numeric" ? 1 : column[1][1]);
    columnBackward(column, inputs, grads.input.map((row) => row.slice(start, end)), grads);
    start = end;
  }
}

// Experts -------------------------------------------------------------------------------------------

const range = (n) => Array.from({ length: n }, (_, i) => i);

// The names of the tensors that the layers of an MLP make.
function tensorsOf(name, activations, last) {
  return activations.map((_, l) => (l + 1 < activations.length ? `${name}/layer${l + 1}` : last));
}

function expertsForward(group, params, t) {
  if (group.penalty) throw new Error(`${group.name}: penalties are not in this file`);
  const experts = range(group.count).map((i) =>
    mlp(layersOf(params, group.parameters, i), group.activations, t[group.reads]));
  tensorsOf(group.name, group.activations, group.name).forEach((tensor, l) => {
    t[tensor] = experts.map((made) => made[l + 1]); // (n, B, units)
  });
}

function expertsBackward(group, params, t, grads) {
  const tensors = tensorsOf(group.name, group.activations, group.name);
  const backs = range(group.count).map((i) => {
    const made = [t[group.reads], ...tensors.map((tensor) => t[tensor][i])];
    const layers = layersOf(params, group.parameters, i);
    return mlpBackward(layers, group.activations, made, grads[group.name][i]);
  });
  for (const { dx } of backs) arrive(grads, group.reads, dx); // all experts read one tensor
  arriveAtLayers(grads, group.parameters, group.activations.map((_, l) => ({
    W: backs.map((back) => back.grads[l].W), // (n, in, out)
    b: backs.map((back) => back.grads[l].b), // (n, out)
  })));
}

// Fusions: a gate, or the one expert as it is ---------------------------------------------------------

// Where the experts of a fusion stand, in order: [tensor, index], or [tensor] for a representation.
function placesOf(fusion, t) {
  return fusion.sources.flatMap(({ name, experts, group }) =>
    (group ? (experts || range(t[name].length)).map((i) => [name, i]) : [[name]]));
}

const at = (tensors, [name, i]) => (i === undefined ? tensors[name] : tensors[name][i]);

function arriveAt(grads, [name, i], d) {
  if (i === undefined) arrive(grads, name, d);
  else grads[name][i] = add(grads[name][i], d);
}

function gateLayers(fusion) { // what the gate's MLP begins its names with, and its layers
  const name = `${fusion.name}/gate`;
  const activations = [...fusion.activations, "identity"];
  return { name, activations, tensors: tensorsOf(name, activations, `${name}/logits`) };
}

function fusionForward(fusion, params, t) {
  const experts = placesOf(fusion, t).map((place) => at(t, place)); // n matrices (B, width)
  if (fusion.fusion === "Pass") {
    t[fusion.name] = experts[0];
    return;
  }
  if (fusion.fusion !== "Gate") throw new Error(`fusion ${fusion.fusion}: not in this file`);
  const { name, activations, tensors } = gateLayers(fusion);
  const made = mlp(layersOf(params, name), activations, t[fusion.selector]);
  tensors.forEach((tensor, l) => { t[tensor] = made[l + 1]; });
  const w = t[`${name}/logits`].map(softmax); // (B, n)
  t[`${name}/weights`] = w;
  t[fusion.name] = w.map((row, r) => mixed(row, experts.map((E) => E[r]))); // sum of w_i E_i
}

function fusionBackward(fusion, params, t, grads) {
  const places = placesOf(fusion, t);
  const dy = grads[fusion.name]; // (B, width)
  if (fusion.fusion === "Pass") {
    arriveAt(grads, places[0], dy);
    return;
  }
  const { name, activations, tensors } = gateLayers(fusion);
  const w = t[`${name}/weights`];
  places.forEach((place, i) => // dE_i = w_i dy
    arriveAt(grads, place, dy.map((row, r) => row.map((d) => w[r][i] * d))));
  const dz = w.map((row, r) => {
    const dw = places.map((place) => dot(dy[r], at(t, place)[r])); // dw_i = dy . E_i
    const mean = dot(row, dw);
    return row.map((weight, i) => weight * (dw[i] - mean)); // through the softmax
  });
  const made = [t[fusion.selector], ...tensors.map((tensor) => t[tensor])];
  const back = mlpBackward(layersOf(params, name), activations, made, dz);
  arrive(grads, fusion.selector, back.dx);
  arriveAtLayers(grads, name, back.grads);
}

// Towers ----------------------------------------------------------------------------------------------

const hasClasses = (tower) => tower.kind.startsWith("multiclass");

function towerLayers(tower) {
  const name = `tower/${tower.task}`;
  const activations = [...tower.activations, "identity"];
  return { name, activations, tensors: tensorsOf(name, activations, name) };
}

function towerForward(tower, params, t) {
  const { name, activations, tensors } = towerLayers(tower);
  const made = mlp(layersOf(params, name), activations, t[tower.reads]);
  tensors.forEach((tensor, l) => { t[tensor] = made[l + 1]; });
  if (!hasClasses(tower)) t[name] = t[name].map(([value]) => value); // (B, 1) -> (B,)
}

function towerBackward(tower, params, t, grads) {
  const { name, activations, tensors } = towerLayers(tower);
  const column = (z) => (hasClasses(tower) ? z : z.map((value) => [value])); // (B,) -> (B, 1)
  const made = [t[tower.reads], ...tensors.map((tensor) => t[tensor])];
  made[made.length - 1] = column(t[name]);
  const back = mlpBackward(layersOf(params, name), activations, made, column(grads[name]));
  arrive(grads, tower.reads, back.dx);
  arriveAtLayers(grads, name, back.grads);
}

// Losses ------------------------------------------------------------------------------------------------

// Of one row: z is what the tower says, y the target.
const KINDS = {
  binary: {
    predict: sigmoid,
    loss: (z, y) => Math.max(z, 0) - z * y + Math.log1p(Math.exp(-Math.abs(z))),
    gradient: (z, y) => sigmoid(z) - y,
  },
  regression: {
    predict: (z) => z,
    loss: (z, y) => (z - y) ** 2,
    gradient: (z, y) => 2 * (z - y),
  },
  multiclass: {
    predict: softmax,
    loss: (z, y) => {
      const top = Math.max(...z);
      return top - z[y] + Math.log(sum(z.map((v) => Math.exp(v - top))));
    },
    gradient: (z, y) => softmax(z).map((p, k) => p - (k === y ? 1 : 0)),
  },
};

const kindOf = (tower) => KINDS[tower.kind.split(":")[0]];

// The mean over the rows whose mask is true; 0 where there is none. A target elsewhere is not read.
function taskLoss(tower, t, { targets, masks }) {
  const { task } = tower;
  const rows = range(masks[task].length).filter((r) => masks[task][r]);
  const losses = rows.map((r) => kindOf(tower).loss(t[`tower/${task}`][r], targets[task][r]));
  return rows.length ? sum(losses) / rows.length : 0;
}

function taskLossBackward(tower, t, { targets, masks }, weight) { // dL/dz, as tower/TASK
  const { task } = tower;
  const count = masks[task].filter(Boolean).length;
  return t[`tower/${task}`].map((z, r) => (masks[task][r]
    ? each((d) => (weight * d) / count, kindOf(tower).gradient(z, targets[task][r]))
    : zeros(z)));
}

// The whole model ---------------------------------------------------------------------------------------

// `model` is the architecture, `data` is { inputs, targets, masks, weights }, each by name.
// Every tensor of the forward pass, by name.
function forward(model, params, data) {
  const t = { input: inputForward(model, params, data.inputs) };
  for (const level of model.levels) {
    for (const group of level.groups) expertsForward(group, params, t);
    for (const fusion of level.fusions) fusionForward(fusion, params, t);
  }
  for (const tower of model.towers) towerForward(tower, params, t);
  return t;
}

function losses(model, t, data) { // each task's, and the joint one
  const found = {};
  for (const tower of model.towers) found[`loss[${tower.task}]`] = taskLoss(tower, t, data);
  found.loss = sum(model.towers.map(({ task }) => data.weights[task] * found[`loss[${task}]`]));
  return found;
}

// The gradient, by all parameters and tensors, of the sum of weights[task] times the task's loss.
function backward(model, params, t, data, weights) {
  const grads = { input: zeros(t.input) };
  for (const name in params) grads[name] = zeros(params[name]);
  for (const { groups, fusions } of model.levels) {
    for (const { name } of [...groups, ...fusions]) grads[name] = zeros(t[name]);
  }
  for (const tower of model.towers) {
    grads[`tower/${tower.task}`] = taskLossBackward(tower, t, data, weights[tower.task]);
    towerBackward(tower, params, t, grads);
  }
  for (const { groups, fusions } of [...model.levels].reverse()) {
    for (const fusion of [...fusions].reverse()) fusionBackward(fusion, params, t, grads);
    for (const group of [...groups].reverse()) expertsBackward(group, params, t, grads);
  }
  inputBackward(model, data.inputs, grads);
  return grads;
}

// Adam ----------------------------------------------------------------------------------------------------

const adamStart = (params) => ({ step: 0, m: mapped(params, zeros), v: mapped(params, zeros) });

const mapped = (named, f) =>
  Object.fromEntries(Object.entries(named).map(([name, value]) => [name, f(value, name)]));

// One step along `grads`: the new parameters. `s` holds the moments, and how many steps there were.
function adam(params, grads, s, { rate, beta1, beta2, epsilon, weight_decay, clip }) {
  const squares = mapped(params, (_, name) => sum([grads[name]].flat(Infinity).map((g) => g * g)));
  const norm = Math.sqrt(sum(Object.values(squares)));
  const scale = clip !== null && norm > clip ? clip / norm : 1;
  s.step += 1;
  const [c1, c2] = [1 - beta1 ** s.step, 1 - beta2 ** s.step];
  return mapped(params, (p, name) => {
    const g = each((d) => d * scale, grads[name]);
    s.m[name] = each((m, d) => beta1 * m + (1 - beta1) * d, s.m[name], g);
    s.v[name] = each((v, d) => beta2 * v + (1 - beta2) * d * d, s.v[name], g);
    return each((w, m, v) => w - rate * weight_decay * w
      - (rate * (m / c1)) / (Math.sqrt(v / c2) + epsilon), p, s.m[name], s.v[name]);
  });
}

// A bundle of test vectors ----------------------------------------------------------------------------------

// { shape, values } -> nested arrays, and back; null stays null.
function nested({ shape, values }) {
  if (!shape.length) return values[0];
  const [count, ...rest] = shape;
  const size = values.length / count;
  return range(count).map((i) =>
    nested({ shape: rest, values: values.slice(i * size, (i + 1) * size) }));
}

function plain(tensor) {
  const shape = [];
  for (let part = tensor; Array.isArray(part); part = part[0]) shape.push(part.length);
  return { shape, values: [tensor].flat(Infinity) };
}

// The arrays of a bundle whose names begin with PART/, without that.
function partOf(bundle, part) {
  const names = Object.keys(bundle.arrays).filter((name) => name.startsWith(`${part}/`));
  return Object.fromEntries(names.map((name) =>
    [name.slice(part.length + 1), nested(bundle.arrays[name])]));
}

// Parameters after some numbers of steps, as PREFIXSTEP/PARAMETER; gradientsAt(params, step).
function stepped(prefix, params, steps, settings, gradientsAt) {
  const found = {};
  const s = adamStart(params);
  while (s.step < Math.max(0, ...steps)) {
    params = adam(params, gradientsAt(params, s.step + 1), s, settings);
    if (steps.includes(s.step)) {
      for (const name in params) found[`${prefix}${s.step}/${name}`] = params[name];
    }
  }
  return found;
}

// Everything that a bundle expects, by name.
function compute(bundle) {
  const { architecture: model, adam: settings, tensors } = bundle.meta;
  const [params, given] = [partOf(bundle, "params"), partOf(bundle, "gradients")];
  const data = Object.fromEntries(["inputs", "targets", "masks", "weights"].map((part) =>
    [part, partOf(bundle, part)]));
  const t = forward(model, params, data);
  const found = { ...t };
  for (const tower of model.towers) {
    const { predict } = kindOf(tower);
    found[`prediction/${tower.task}`] = t[`tower/${tower.task}`].map((z) => predict(z));
  }
  Object.assign(found, losses(model, t, data));

  const kinds = { grad: data.weights }; // the joint loss, then each task's alone
  for (const task in data.weights) {
    kinds[`grad[${task}]`] = mapped(data.weights, (_, other) => (other === task ? 1 : 0));
  }
  for (const kind in kinds) {
    const grads = backward(model, params, t, data, kinds[kind]);
    for (const name in grads) found[`${kind}/${name}`] = grads[name];
  }

  Object.assign(found, stepped("adam", params, settings.steps, settings, (p) =>
    backward(model, p, forward(model, p, data), data, data.weights)));
  const handed = tensors.map(([name]) => Number((/^handed(\d+)\//.exec(name) || [])[1] || 0));
  return Object.assign(found, stepped("handed", params, handed, settings, (p, step) =>
    mapped(p, (_, name) => given[`${step}/${name}`])));
}

// With Node: files ----------------------------------------------------------------------------------------

if (typeof require === "function" && require.main === module) {
  const fs = require("node:fs");
  for (const file of process.argv.slice(2)) {
    const results = mapped(compute(JSON.parse(fs.readFileSync(file, "utf8"))), plain);
    const target = file.replace(/\.json$/, ".results.json");
    fs.writeFileSync(target, JSON.stringify(results));
    console.log(`${target}: ${Object.keys(results).length} tensors`);
  }
}
