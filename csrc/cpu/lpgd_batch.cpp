// Compiled once, for the least instruction set: vectors of a member, beside solves of it.

#include "cpu/lpgd_batch.hpp"

#include "core/lpgd_member.hpp"
#include "core/team.hpp"

namespace torchqp::cpu {

template <class T>
void lpgd_move_batch(const LpgdBatch<T>& batch, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) lpgd_move(SerialTeam{}, batch, i);
}

template <class T>
void lpgd_difference_batch(const LpgdBatch<T>& batch, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) lpgd_difference(SerialTeam{}, batch, i);
}

#define TORCHQP_INSTANTIATE(T)                                          \
  template void lpgd_move_batch(const LpgdBatch<T>&, int64_t, int64_t); \
  template void lpgd_difference_batch(const LpgdBatch<T>&, int64_t, int64_t);
TORCHQP_INSTANTIATE(float)
TORCHQP_INSTANTIATE(double)
#undef TORCHQP_INSTANTIATE

}  // namespace torchqp::cpu
