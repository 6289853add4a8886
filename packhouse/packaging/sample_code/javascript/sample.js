/**
 * Run a model of this package on its sample input and compare the outputs with the expected ones.
 *
 * usage: node sample.js [PACKAGE_FOLDER [MODEL_PATH]]; by default the package around this file, and its best model.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ort from 'onnxruntime-node';

const PROVIDERS = {
  CPUExecutionProvider: 'cpu',
  CUDAExecutionProvider: 'cuda',
  CoreMLExecutionProvider: 'coreml',
  DmlExecutionProvider: 'dml',
  QNNExecutionProvider: 'qnn',
  TensorrtExecutionProvider: 'tensorrt',
  WebGpuExecutionProvider: 'webgpu',
  XnnpackExecutionProvider: 'xnnpack',
};
const GRAPH_OPTIMIZATION_LEVELS = { 0: 'disabled', 1: 'basic', 2: 'extended', 3: 'layout', 99: 'all' };
const EXECUTION_MODES = ['sequential', 'parallel'];
const ARRAYS = {
  bool: Uint8Array,
  float16: { from: (values) => Uint16Array.from(values, toHalf) },
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: { from: (values) => BigInt64Array.from(values, BigInt) },
  int8: Int8Array,
  str: Array,
  uint8: Uint8Array,
};

/** Run one model of the package; return 0 where every output is as expected, else 1. */
async function main(root = join(dirname(fileURLToPath(import.meta.url)), '..', '..'), modelPath = undefined) {
  const config = findModel(readJson(root, 'models_rank.json'), modelPath);
  const sample = readJson(root, 'SampleCode', 'sample_input.json');
  const options = sessionOptions(config.inference_settings ?? {});
  const session = await ort.InferenceSession.create(join(root, config.model_path), options);
  const providers = options.executionProviders.map((provider) => provider.name).join(', ');
  console.log(`${config.model_path} on ${providers}, onnxruntime-node ${ort.env.versions.node}`);
  const feeds = Object.fromEntries(Object.entries(sample.inputs).map(([name, tensor]) => [name, toTensor(tensor)]));
  const expected = Object.keys(sample.outputs);
  const outputs = await session.run(feeds, expected.length ? expected : session.outputNames);
  let status = 0;
  for (const [name, output] of Object.entries(outputs)) {
    const values = toNumbers(output);
    const problem = expected.length ? difference(output.dims, values, sample.outputs[name], sample.tolerance) : '';
    const verdict = expected.length ? problem || 'as expected' : 'nothing to compare with';
    console.log(`${name}: ${output.type} [${output.dims}] [${values.slice(0, 5)}]: ${verdict}`);
    status = problem ? 1 : status;
  }
  return status;
}

function readJson(...path) {
  return JSON.parse(readFileSync(join(...path), 'utf8'));
}

/** Return the configuration of the model at `modelPath`; without one, that of the first, which is the best. */
function findModel(entries, modelPath) {
  const configs = entries.map((entry) => entry.model_config.config);
  const found = configs.find((config) => modelPath === undefined || config.model_path === modelPath);
  if (!found) throw new Error(`models_rank.json has no model ${modelPath ?? 'at all'}`);
  return found;
}

/** Return the session options that the model was graded with; a session that falls back to the CPU is refused. */
function sessionOptions(settings) {
  const providers = settings.execution_provider?.length ? settings.execution_provider : ['CPUExecutionProvider'];
  const chosen = settings.session_options ?? {};
  const options = {
    executionProviders: providers.map((name, index) => toProvider(name, settings.provider_options?.[index] ?? {})),
    extra: { ...chosen.extra_session_config },
  };
  if (!providers.includes('CPUExecutionProvider')) options.extra['session.disable_cpu_ep_fallback'] = '1';
  if (chosen.execution_mode != null) options.executionMode = EXECUTION_MODES[chosen.execution_mode];
  if (chosen.graph_optimization_level != null) {
    options.graphOptimizationLevel = GRAPH_OPTIMIZATION_LEVELS[chosen.graph_optimization_level];
  }
  if (chosen.inter_op_num_threads != null) options.interOpNumThreads = chosen.inter_op_num_threads;
  if (chosen.intra_op_num_threads != null) options.intraOpNumThreads = chosen.intra_op_num_threads;
  return options;
}

/** Return a provider as onnxruntime-node takes it, which has no way to set provider options but the device. */
function toProvider(name, { device_id: deviceId, ...others }) {
  const usable = ort.listSupportedBackends().map((backend) => backend.name);
  if (!usable.includes(PROVIDERS[name])) {
    throw new Error(`this onnxruntime-node has no ${name}; it has ${usable.join(', ')}`);
  }
  if (Object.keys(others).length) {
    throw new Error(`onnxruntime-node cannot set the options ${Object.keys(others).join(', ')} of ${name}`);
  }
  return deviceId === undefined ? { name: PROVIDERS[name] } : { name: PROVIDERS[name], deviceId: Number(deviceId) };
}

/** Make a tensor of one in sample_input.json. */
function toTensor({ dtype, shape, data }) {
  if (!(dtype in ARRAYS)) {
    throw new Error(`this sample cannot handle a tensor of ${dtype}; it can handle ${Object.keys(ARRAYS).join(', ')}`);
  }
  return new ort.Tensor(dtype === 'str' ? 'string' : dtype, ARRAYS[dtype].from(data), shape);
}

/** Return a tensor's values as an array of numbers, or of strings. */
function toNumbers({ type, data }) {
  if (type === 'string') return [...data];
  return Array.from(data, type === 'float16' && data instanceof Uint16Array ? fromHalf : Number);
}

/** Say how an output differs from the expected one; nothing where it does not. Strings must be the same. */
function difference(dims, values, { shape, data }, { atol, rtol }) {
  if (dims.join() !== shape.join()) return `not as expected: the shape should be [${shape}]`;
  const close = (value, wanted) => Math.abs(value - wanted) <= atol + rtol * Math.abs(wanted);
  const same = (value, wanted) => value === wanted || (typeof value === 'number' && close(value, Number(wanted)));
  const first = values.findIndex((value, index) => !same(value, data[index]));
  return first < 0 ? '' : `not as expected: ${values[first]} should be ${data[first]}`;
}

/** Return the number that the bits of a half-precision float stand for. */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 0x1f, bits & 0x3ff];
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}

/** Return the bits of the half-precision float nearest to a number; without their sign, floats are in order of their bits. */
function toHalf(value) {
  let [low, high] = [0, 0x7c01];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fromHalf(middle) <= Math.abs(value)) low = middle;
    else high = middle;
  }
  const nearest = fromHalf(high) - Math.abs(value) < Math.abs(value) - fromHalf(low) ? high : low;
  return value < 0 ? nearest | 0x8000 : nearest;
}

try {
  process.exitCode = await main(...process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
