// Run a model of this package on its sample input and compare the outputs with the expected ones.
//
// usage: dotnet run -- [PACKAGE_FOLDER [MODEL_PATH]]; by default the package around this program, and its best model.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text.Json;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

static class Program
{
    const string Cpu = "CPUExecutionProvider";
    const string Types = "float32, float64, float16, int8, int32, int64, uint8, bool, str";

    static int Main(string[] arguments)
    {
        try
        {
            return Run(
                arguments.Length > 0 ? arguments[0] : FindPackage(AppContext.BaseDirectory),
                arguments.Length > 1 ? arguments[1] : null);
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }

    /// <summary>Run one model of the package; return 0 where every output is as expected, else 1.</summary>
    static int Run(string package, string modelPath)
    {
        JsonElement config = FindModel(ReadJson(package, "models_rank.json"), modelPath);
        JsonElement sample = ReadJson(package, "SampleCode", "sample_input.json");
        JsonElement settings = Get(config, "inference_settings");
        string[] providers = Items(Get(settings, "execution_provider")).Select(item => item.GetString()).ToArray();
        providers = providers.Length > 0 ? providers : new[] { Cpu };
        string path = config.GetProperty("model_path").GetString();

        using (SessionOptions options = MakeOptions(settings, providers))
        using (var session = new InferenceSession(Path.Combine(package, path), options))
        using (var runOptions = new RunOptions())
        {
            string version = OrtEnv.Instance().GetVersionString();
            Console.WriteLine($"{path} on {string.Join(", ", providers)}, onnxruntime {version}");
            Dictionary<string, OrtValue> feeds = Properties(sample.GetProperty("inputs"))
                .ToDictionary(input => input.Name, input => ToTensor(input.Value));
            JsonElement expected = sample.GetProperty("outputs");
            List<string> names = Properties(expected).Select(output => output.Name).ToList();
            bool compare = names.Count > 0;
            names = compare ? names : session.OutputNames.ToList();
            int status = 0;
            using (IDisposableReadOnlyCollection<OrtValue> outputs = session.Run(runOptions, feeds, names))
            {
                for (int i = 0; i < names.Count; i++)
                {
                    string shape = $"[{string.Join(", ", outputs[i].GetTensorTypeAndShape().Shape)}]";
                    object[] values = ToValues(outputs[i]);
                    string problem = compare
                        ? Difference(shape, values, expected.GetProperty(names[i]), sample.GetProperty("tolerance"))
                        : "nothing to compare with";
                    string head = string.Join(", ", values.Take(5));
                    Console.WriteLine($"{names[i]}: {shape} [{head}]: {(problem == "" ? "as expected" : problem)}");
                    status = compare && problem != "" ? 1 : status;
                }
            }
            foreach (OrtValue feed in feeds.Values)
            {
                feed.Dispose();
            }
            return status;
        }
    }

    /// <summary>Return the first folder that holds models_rank.json, from <paramref name="start"/> upwards.</summary>
    static string FindPackage(string start)
    {
        for (var folder = new DirectoryInfo(start); folder != null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "models_rank.json")))
            {
                return folder.FullName;
            }
        }
        throw new FileNotFoundException("no package around this program; name its folder");
    }

    /// <summary>Return the configuration of a model; without a path that of the first, which is the best.</summary>
    static JsonElement FindModel(JsonElement entries, string modelPath)
    {
        foreach (JsonElement entry in entries.EnumerateArray())
        {
            JsonElement config = entry.GetProperty("model_config").GetProperty("config");
            if (modelPath == null || config.GetProperty("model_path").GetString() == modelPath)
            {
                return config;
            }
        }
        throw new InvalidDataException($"models_rank.json has no model {modelPath ?? "at all"}");
    }

    /// <summary>Return the session options that the model was graded with, which refuse a fall-back to the CPU.</summary>
    static SessionOptions MakeOptions(JsonElement settings, string[] providers)
    {
        var options = new SessionOptions();
        foreach (JsonProperty option in Properties(Get(settings, "session_options")))
        {
            if (option.Value.ValueKind == JsonValueKind.Null)
            {
                continue;
            }
            switch (option.Name)
            {
                case "execution_mode":
                    options.ExecutionMode = (ExecutionMode)option.Value.GetInt32();
                    break;
                case "graph_optimization_level":
                    options.GraphOptimizationLevel = (GraphOptimizationLevel)option.Value.GetInt32();
                    break;
                case "inter_op_num_threads":
                    options.InterOpNumThreads = option.Value.GetInt32();
                    break;
                case "intra_op_num_threads":
                    options.IntraOpNumThreads = option.Value.GetInt32();
                    break;
                case "extra_session_config":
                    foreach (JsonProperty entry in Properties(option.Value))
                    {
                        options.AddSessionConfigEntry(entry.Name, entry.Value.GetString());
                    }
                    break;
            }
        }
        JsonElement[] providerOptions = Items(Get(settings, "provider_options")).ToArray();
        for (int i = 0; i < providers.Length; i++)
        {
            JsonElement chosen = i < providerOptions.Length ? providerOptions[i] : default(JsonElement);
            AppendProvider(
                options, providers[i], Properties(chosen).ToDictionary(item => item.Name, item => item.Value.GetString()));
        }
        if (!providers.Contains(Cpu))
        {
            options.AddSessionConfigEntry("session.disable_cpu_ep_fallback", "1");
        }
        return options;
    }

    static void AppendProvider(SessionOptions options, string name, Dictionary<string, string> settings)
    {
        string[] available = OrtEnv.Instance().GetAvailableProviders();
        if (!available.Contains(name))
        {
            throw new NotSupportedException($"this onnxruntime has no {name}; it has {string.Join(", ", available)}");
        }
        switch (name)
        {
            case Cpu:
                break;
            case "CUDAExecutionProvider":
                using (var cuda = new OrtCUDAProviderOptions())
                {
                    cuda.UpdateOptions(settings);
                    options.AppendExecutionProvider_CUDA(cuda);
                }
                break;
            case "TensorrtExecutionProvider":
                using (var tensorrt = new OrtTensorRTProviderOptions())
                {
                    tensorrt.UpdateOptions(settings);
                    options.AppendExecutionProvider_Tensorrt(tensorrt);
                }
                break;
            default:
                options.AppendExecutionProvider(name, settings);
                break;
        }
    }

    /// <summary>Make a tensor of one in sample_input.json.</summary>
    static OrtValue ToTensor(JsonElement tensor)
    {
        long[] shape = tensor.GetProperty("shape").EnumerateArray().Select(item => item.GetInt64()).ToArray();
        JsonElement data = tensor.GetProperty("data");
        string dtype = tensor.GetProperty("dtype").GetString();
        switch (dtype)
        {
            case "float32": return Tensor(data, shape, item => item.GetSingle());
            case "float64": return Tensor(data, shape, item => item.GetDouble());
            case "float16": return Tensor(data, shape, item => (Float16)item.GetSingle());
            case "int8": return Tensor(data, shape, item => item.GetSByte());
            case "int32": return Tensor(data, shape, item => item.GetInt32());
            case "int64": return Tensor(data, shape, item => item.GetInt64());
            case "uint8": return Tensor(data, shape, item => item.GetByte());
            case "bool": return Tensor(data, shape, item => item.GetBoolean());
            case "str":
                OrtValue strings = OrtValue.CreateTensorWithEmptyStrings(OrtAllocator.DefaultInstance, shape);
                int index = 0;
                foreach (JsonElement item in data.EnumerateArray())
                {
                    strings.StringTensorSetElementAt(item.GetString().AsSpan(), index++);
                }
                return strings;
            default:
                throw new NotSupportedException($"this sample cannot handle a tensor of {dtype}; it can handle {Types}");
        }
    }

    static OrtValue Tensor<T>(JsonElement data, long[] shape, Func<JsonElement, T> convert) where T : unmanaged
    {
        return OrtValue.CreateTensorValueFromMemory(data.EnumerateArray().Select(convert).ToArray(), shape);
    }

    /// <summary>Return a tensor's values: numbers as double, strings and truth values as they are.</summary>
    static object[] ToValues(OrtValue tensor)
    {
        TensorElementType type = tensor.GetTensorTypeAndShape().ElementDataType;
        switch (type)
        {
            case TensorElementType.Float: return Values<float>(tensor, item => (double)item);
            case TensorElementType.Double: return Values<double>(tensor, item => item);
            case TensorElementType.Float16: return Values<Float16>(tensor, item => (double)(float)item);
            case TensorElementType.Int8: return Values<sbyte>(tensor, item => (double)item);
            case TensorElementType.Int32: return Values<int>(tensor, item => (double)item);
            case TensorElementType.Int64: return Values<long>(tensor, item => (double)item);
            case TensorElementType.UInt8: return Values<byte>(tensor, item => (double)item);
            case TensorElementType.Bool: return Values<bool>(tensor, item => item);
            case TensorElementType.String: return tensor.GetStringTensorAsArray();
            default:
                throw new NotSupportedException($"this sample cannot handle a tensor of {type}; it can handle {Types}");
        }
    }

    static object[] Values<T>(OrtValue tensor, Func<T, object> convert) where T : unmanaged
    {
        return tensor.GetTensorDataAsSpan<T>().ToArray().Select(convert).ToArray();
    }

    /// <summary>Say how an output differs from the expected one; nothing where it does not.</summary>
    static string Difference(string shape, object[] values, JsonElement expected, JsonElement tolerance)
    {
        string expectedShape = $"[{string.Join(", ", expected.GetProperty("shape").EnumerateArray())}]";
        if (shape != expectedShape)
        {
            return $"not as expected: the shape should be {expectedShape}";
        }
        double atol = tolerance.GetProperty("atol").GetDouble();
        double rtol = tolerance.GetProperty("rtol").GetDouble();
        JsonElement[] wanted = expected.GetProperty("data").EnumerateArray().ToArray();
        for (int i = 0; i < values.Length; i++)
        {
            bool same = values[i] is double number && wanted[i].ValueKind == JsonValueKind.Number
                ? Math.Abs(number - wanted[i].GetDouble()) <= atol + rtol * Math.Abs(wanted[i].GetDouble())
                : values[i].ToString() == wanted[i].ToString();
            if (!same)
            {
                return $"not as expected: {values[i]} should be {wanted[i]}";
            }
        }
        return "";
    }

    static JsonElement ReadJson(params string[] path)
    {
        return JsonDocument.Parse(File.ReadAllText(Path.Combine(path))).RootElement;
    }

    /// <summary>Return the value of a key, or an undefined element where there is none.</summary>
    static JsonElement Get(JsonElement element, string key)
    {
        JsonElement value = default(JsonElement);
        if (element.ValueKind == JsonValueKind.Object)
        {
            element.TryGetProperty(key, out value);
        }
        return value;
    }

    static IEnumerable<JsonProperty> Properties(JsonElement element)
    {
        return element.ValueKind == JsonValueKind.Object ? element.EnumerateObject() : Enumerable.Empty<JsonProperty>();
    }

    static IEnumerable<JsonElement> Items(JsonElement element)
    {
        return element.ValueKind == JsonValueKind.Array ? element.EnumerateArray() : Enumerable.Empty<JsonElement>();
    }
}
