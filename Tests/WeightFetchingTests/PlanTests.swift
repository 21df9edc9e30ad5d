// SPDX-License-Identifier: Apache-2.0

import Testing
import WeightFetching

@Suite struct PlanTests {}
