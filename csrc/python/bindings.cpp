// torchqp._C: how this copy was built, and the enum and settings of the core. No tensors: those
// pass through torch.ops.
#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>

#include <cctype>
#include <string>

#include "core/settings.hpp"
#include "core/status.hpp"

namespace py = pybind11;

namespace torchqp {
namespace {

/// The comma-separated entries of text, none for the empty string.
py::list split(const std::string& text) {
  return text.empty() ? py::list() : py::list(py::str(text).attr("split")(","));
}

/// None for the empty string, which is how CMake says "absent".
py::object optional(const char* text) {
  return *text ? py::object(py::str(text)) : py::none();
}

py::dict build_info() {
  py::dict info;
  info["version"] = TORCHQP_VERSION;
  info["compiler"] = TORCHQP_COMPILER;
  info["build_type"] = TORCHQP_BUILD_TYPE;
  info["simd_levels"] = split(TORCHQP_SIMD_LEVELS);
  info["torch"] = TORCHQP_TORCH_VERSION;
  info["torch_cuda"] = optional(TORCHQP_TORCH_CUDA);
  info["cuda_compiler"] = optional(TORCHQP_CUDA_COMPILER);
  info["cuda_kernels"] = static_cast<bool>(TORCHQP_CUDA_KERNELS);
  info["cuda_architectures"] = split(TORCHQP_CUDA_ARCHITECTURES);
  return info;
}

/// "solved_inaccurate" -> "SOLVED_INACCURATE": the Python names follow to_string, so they cannot
/// drift apart.
std::string member_name(Status status) {
  std::string name = to_string(status);
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information, Status and Settings of the C++ core.";
  m.def("build_info", &build_info, "How this copy of torchqp was built.");

  py::native_enum<Status> status(m, "Status", "enum.IntEnum", "Outcome of one problem.");
  for (int32_t value = 0; value <= static_cast<int32_t>(Status::kNotConvex); ++value)
    status.value(member_name(static_cast<Status>(value)).c_str(), static_cast<Status>(value));
  status.finalize();

  const Settings defaults;
  py::class_<Settings>(m, "Settings", "Stopping rule and policies of one solve.")
      .def(py::init(
               [](double eps_abs, double eps_rel, int max_iter, bool polish, bool best_iterate) {
                 return Settings{eps_abs, eps_rel, max_iter, polish, best_iterate};
               }),
           py::kw_only(), py::arg("eps_abs") = defaults.eps_abs,
           py::arg("eps_rel") = defaults.eps_rel, py::arg("max_iter") = defaults.max_iter,
           py::arg("polish") = defaults.polish, py::arg("best_iterate") = defaults.best_iterate)
      .def_readonly("eps_abs", &Settings::eps_abs)
      .def_readonly("eps_rel", &Settings::eps_rel)
      .def_readonly("max_iter", &Settings::max_iter)
      .def_readonly("polish", &Settings::polish)
      .def_readonly("best_iterate", &Settings::best_iterate)
      .def(
          "validate", [](const Settings& settings) { return validate(settings); },
          "None when the settings are usable, else a sentence that names the field.");
  m.def(
      "default_settings",
      [](bool single) { return single ? default_settings<float>() : default_settings<double>(); },
      py::kw_only(), py::arg("single"), "Defaults in float32 (single) or float64.");
}

}  // namespace torchqp
