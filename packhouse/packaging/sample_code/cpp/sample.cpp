// Run a model of this package on its sample input and compare the outputs with the expected ones.
//
// usage: sample [PACKAGE_FOLDER [MODEL_PATH]]; by default the package around this program, and its best model.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kCpu = "CPUExecutionProvider";

const std::map<std::string, ONNXTensorElementDataType> kTypes = {
    {"bool", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},     {"float16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}, {"float64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
    {"int32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},   {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"int8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},     {"str", ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING},
    {"uint8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
};

json ReadJson(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return json::parse(file);
}

// The first folder that holds models_rank.json, from that of this program upwards.
fs::path FindPackage(const fs::path& program) {
  for (fs::path folder = fs::weakly_canonical(program).parent_path();; folder = folder.parent_path()) {
    if (fs::exists(folder / "models_rank.json")) return folder;
    if (folder == folder.parent_path()) throw std::runtime_error("no package around this program; name its folder");
  }
}

// The configuration of the model at `model_path`; without one, that of the first, which is the best.
json FindModel(const json& entries, const std::string& model_path) {
  for (const json& entry : entries) {
    const json& config = entry.at("model_config").at("config");
    if (model_path.empty() || config.at("model_path") == model_path) return config;
  }
  throw std::runtime_error("models_rank.json has no model " + (model_path.empty() ? "at all" : model_path));
}

// The value of a key, or `otherwise` where it is missing or null.
template <typename T>
T ValueOr(const json& object, const std::string& key, const T& otherwise) {
  return object.is_object() && object.contains(key) && !object[key].is_null() ? object[key].get<T>() : otherwise;
}

void AppendProvider(Ort::SessionOptions& options, const std::string& name, const json& settings) {
  const auto available = Ort::GetAvailableProviders();
  if (std::find(available.begin(), available.end(), name) == available.end()) {
    throw std::runtime_error("this onnxruntime has no " + name);
  }
  const auto values = settings.get<std::unordered_map<std::string, std::string>>();
  if (name == "CUDAExecutionProvider") {
    Ort::CUDAProviderOptions cuda;
    cuda.Update(values);
    options.AppendExecutionProvider_CUDA_V2(*cuda);
  } else if (name == "TensorrtExecutionProvider") {
    Ort::TensorRTProviderOptions tensorrt;
    tensorrt.Update(values);
    options.AppendExecutionProvider_TensorRT_V2(*tensorrt);
  } else if (name != kCpu) {
    options.AppendExecutionProvider(name, values);
  }
}

// The session options that the model was graded with; a session that falls back to the CPU is refused.
Ort::SessionOptions MakeOptions(const json& settings, const std::vector<std::string>& providers) {
  const json chosen = ValueOr(settings, "session_options", json::object());
  const json provider_options = ValueOr(settings, "provider_options", json::array());
  Ort::SessionOptions options;
  for (const auto& [name, value] : chosen.items()) {
    if (value.is_null()) continue;
    if (name == "execution_mode") options.SetExecutionMode(value.get<ExecutionMode>());
    if (name == "graph_optimization_level") options.SetGraphOptimizationLevel(value.get<GraphOptimizationLevel>());
    if (name == "inter_op_num_threads") options.SetInterOpNumThreads(value.get<int>());
    if (name == "intra_op_num_threads") options.SetIntraOpNumThreads(value.get<int>());
    if (name != "extra_session_config") continue;
    for (const auto& [key, entry] : value.items()) options.AddConfigEntry(key.c_str(), entry.get<std::string>().c_str());
  }
  for (std::size_t i = 0; i < providers.size(); ++i) {
    AppendProvider(options, providers[i], i < provider_options.size() ? provider_options[i] : json::object());
  }
  if (std::find(providers.begin(), providers.end(), kCpu) == providers.end()) {
    options.AddConfigEntry("session.disable_cpu_ep_fallback", "1");
  }
  return options;
}

// Call `function` with a value of the C++ type that holds elements of an ONNX type. Strings are not among them.
template <typename Function>
auto WithType(ONNXTensorElementDataType type, Function function) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return function(bool{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return function(Ort::Float16_t{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return function(float{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return function(double{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return function(std::int32_t{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return function(std::int64_t{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return function(std::int8_t{});
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return function(std::uint8_t{});
    default: throw std::runtime_error("this sample cannot handle a tensor of ONNX type " + std::to_string(type));
  }
}

// A tensor of one in sample_input.json.
Ort::Value ToTensor(const json& tensor) {
  const auto dtype = tensor.at("dtype").get<std::string>();
  const auto found = kTypes.find(dtype);
  if (found == kTypes.end()) {
    std::string known;
    for (const auto& [name, type] : kTypes) known += " " + name;
    throw std::runtime_error("this sample cannot handle a tensor of " + dtype + "; it can handle" + known);
  }
  const auto shape = tensor.at("shape").get<std::vector<std::int64_t>>();
  const json& data = tensor.at("data");
  Ort::AllocatorWithDefaultOptions allocator;
  Ort::Value value = Ort::Value::CreateTensor(allocator, shape.data(), shape.size(), found->second);
  if (value.GetTensorTypeAndShapeInfo().GetElementCount() != data.size()) {
    throw std::runtime_error("sample_input.json holds " + std::to_string(data.size()) + " values for another shape");
  }
  if (dtype == "str") {
    for (std::size_t i = 0; i < data.size(); ++i) value.FillStringTensorElement(data[i].get<std::string>().c_str(), i);
    return value;
  }
  WithType(found->second, [&](auto zero) {
    using T = decltype(zero);
    T* target = value.GetTensorMutableData<T>();
    for (const json& item : data) {
      if constexpr (std::is_same_v<T, Ort::Float16_t>) {
        *target++ = Ort::Float16_t(item.get<float>());
      } else {
        *target++ = item.get<T>();
      }
    }
  });
  return value;
}

// A tensor's values as a flat array of numbers, truth values or strings.
json ToJson(const Ort::Value& tensor) {
  const auto info = tensor.GetTensorTypeAndShapeInfo();
  json values = json::array();
  if (info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) {
    for (std::size_t i = 0; i < info.GetElementCount(); ++i) values.push_back(tensor.GetStringTensorElement(i));
    return values;
  }
  WithType(info.GetElementType(), [&](auto zero) {
    using T = decltype(zero);
    const T* source = tensor.GetTensorData<T>();
    for (std::size_t i = 0; i < info.GetElementCount(); ++i) {
      if constexpr (std::is_same_v<T, Ort::Float16_t>) {
        values.push_back(source[i].ToFloat());
      } else {
        values.push_back(source[i]);
      }
    }
  });
  return values;
}

// How an output differs from the expected one; nothing where it does not. Strings must be the same.
std::string Difference(const json& shape, const json& values, const json& expected, const json& tolerance) {
  if (shape != expected.at("shape")) return "not as expected: the shape should be " + expected.at("shape").dump();
  const double atol = tolerance.at("atol"), rtol = tolerance.at("rtol");
  for (std::size_t i = 0; i < values.size(); ++i) {
    const json& wanted = expected.at("data")[i];
    const bool same = values[i].is_number() && wanted.is_number()
                          ? std::abs(values[i].get<double>() - wanted.get<double>()) <=
                                atol + rtol * std::abs(wanted.get<double>())
                          : values[i] == wanted;
    if (!same) return "not as expected: " + values[i].dump() + " should be " + wanted.dump();
  }
  return "";
}

int Run(const fs::path& package, const std::string& model_path) {
  const json config = FindModel(ReadJson(package / "models_rank.json"), model_path);
  const json sample = ReadJson(package / "SampleCode" / "sample_input.json");
  const json settings = ValueOr(config, "inference_settings", json::object());
  const auto providers = ValueOr(settings, "execution_provider", std::vector<std::string>{kCpu});
  const auto path = config.at("model_path").get<std::string>();
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "sample");
  Ort::Session session(env, (package / fs::u8path(path)).c_str(), MakeOptions(settings, providers));
  std::cout << path << " on " << json(providers).dump() << ", onnxruntime " << Ort::GetVersionString() << "\n";

  std::vector<std::string> input_names, output_names;
  std::vector<const char*> inputs, outputs;
  std::vector<Ort::Value> feeds;
  for (const auto& [name, tensor] : sample.at("inputs").items()) {
    input_names.push_back(name);
    feeds.push_back(ToTensor(tensor));
  }
  Ort::AllocatorWithDefaultOptions allocator;
  for (const auto& [name, tensor] : sample.at("outputs").items()) output_names.push_back(name);
  for (std::size_t i = 0; sample.at("outputs").empty() && i < session.GetOutputCount(); ++i) {
    output_names.push_back(session.GetOutputNameAllocated(i, allocator).get());
  }
  for (const std::string& name : input_names) inputs.push_back(name.c_str());
  for (const std::string& name : output_names) outputs.push_back(name.c_str());
  const auto results =
      session.Run(Ort::RunOptions{}, inputs.data(), feeds.data(), feeds.size(), outputs.data(), outputs.size());

  int status = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const json shape = results[i].GetTensorTypeAndShapeInfo().GetShape();
    const json values = ToJson(results[i]);
    std::string verdict = "nothing to compare with";
    if (sample.at("outputs").contains(output_names[i])) {
      verdict = Difference(shape, values, sample["outputs"][output_names[i]], sample.at("tolerance"));
      status = verdict.empty() ? status : 1;
    }
    const json head(std::vector<json>(values.begin(), values.begin() + std::min<std::size_t>(5, values.size())));
    std::cout << output_names[i] << ": " << shape.dump() << " " << head.dump() << ": "
              << (verdict.empty() ? "as expected" : verdict) << "\n";
  }
  return status;
}

int main(int argc, char** argv) {
  try {
    return Run(argc > 1 ? fs::path(argv[1]) : FindPackage(argv[0]), argc > 2 ? argv[2] : "");
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
