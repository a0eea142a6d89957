// Defaults per precision, and the message for each unusable field.
#include "core/settings.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace torchqp {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Settings, DefaultsAreThoseOfThePrecision) {
  EXPECT_EQ(default_settings<double>().eps_abs, 1e-8);
  EXPECT_EQ(default_settings<double>().eps_rel, 1e-8);
  EXPECT_EQ(default_settings<float>().eps_abs, 1e-4);
  EXPECT_EQ(default_settings<float>().eps_rel, 1e-4);
  EXPECT_EQ(validate(default_settings<double>()), nullptr);
  EXPECT_EQ(validate(default_settings<float>()), nullptr);
}

TEST(Settings, ZeroTolerancesAndNoIterationsAreUsable) {
  Settings settings;
  settings.eps_abs = settings.eps_rel = 0;
  settings.max_iter = 0;
  EXPECT_EQ(validate(settings), nullptr);
}

TEST(Settings, AnUnusableFieldIsNamed) {
  for (const double bad : {-1e-9, kNan, kInf}) {
    Settings settings;
    settings.eps_abs = bad;
    EXPECT_STREQ(validate(settings), "eps_abs: expected a finite number >= 0") << bad;
    settings = Settings{};
    settings.eps_rel = bad;
    EXPECT_STREQ(validate(settings), "eps_rel: expected a finite number >= 0") << bad;
  }
  Settings settings;
  settings.max_iter = -1;
  EXPECT_STREQ(validate(settings), "max_iter: expected an integer >= 0");
}

}  // namespace
}  // namespace torchqp
