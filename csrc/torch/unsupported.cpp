// Answers for tensors that no kernel of this build takes, in place of the dispatcher's list of
// backends.

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <string>

namespace {

/// The name that messages use, as in args.cpp: what the user called.
std::string message_name(const c10::OperatorHandle& op) {
  const std::string& name = op.schema().name();
  return name == "torchqp::solve" ? "solve_qp" : name.substr(name.find("::") + 2);
}

/// Calls visit(name, tensor) for every tensor argument that was given.
template <class Visit>
void for_each_tensor(const c10::OperatorHandle& op, const torch::jit::Stack& stack,
                     const Visit& visit) {
  const auto& arguments = op.schema().arguments();
  const auto values = torch::jit::last(stack, arguments.size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (values[i].isTensor() && values[i].toTensor().defined())
      visit(arguments[i].name(), values[i].toTensor());
  }
}

#if !defined(TORCHQP_HAS_CUDA)
void refuse_cuda(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string op_name = message_name(op);
  for_each_tensor(op, *stack, [&](const std::string& name, const at::Tensor& tensor) {
    TORCH_CHECK_VALUE(tensor.is_cuda(), op_name, ": expected all tensors on one device, got ", name,
                      " on ", tensor.device(), " and others on a CUDA device");
  });
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, op_name, ": expected CPU tensors, got CUDA tensors; this build of torchqp has ",
      "CPU kernels only. Move the arguments with .cpu(), or build torchqp with nvcc and a torch ",
      "for the same CUDA: torchqp.build_info() says what this build had");
}
#endif

void refuse_layout(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string op_name = message_name(op);
  for_each_tensor(op, *stack, [&](const std::string& name, const at::Tensor& tensor) {
    TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, op_name, ": expected ", name,
                      " of layout Strided, got ", tensor.layout(), "; convert it with .to_dense()");
  });
  TORCH_CHECK_NOT_IMPLEMENTED(false, op_name, ": expected strided tensors");
}

/// For every operator: `refuse` is what this dispatch key answers.
template <c10::KernelFunction::BoxedKernelFunction* refuse>
void register_refusal(torch::Library& m) {
  for (const char* op : {"solve", "kkt_solve", "parameter_gradients", "kkt_gradients", "lpgd"})
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<refuse>());
}

}  // namespace

#if !defined(TORCHQP_HAS_CUDA)
TORCH_LIBRARY_IMPL(torchqp, CUDA, m) {
  register_refusal<&refuse_cuda>(m);
}
#endif

TORCH_LIBRARY_IMPL(torchqp, SparseCPU, m) {
  register_refusal<&refuse_layout>(m);
}

TORCH_LIBRARY_IMPL(torchqp, SparseCsrCPU, m) {
  register_refusal<&refuse_layout>(m);
}

TORCH_LIBRARY_IMPL(torchqp, SparseCUDA, m) {
  register_refusal<&refuse_layout>(m);
}

TORCH_LIBRARY_IMPL(torchqp, SparseCsrCUDA, m) {
  register_refusal<&refuse_layout>(m);
}
