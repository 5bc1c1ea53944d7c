// SPDX-License-Identifier: Apache-2.0
// Metrics: the Prometheus endpoint of a daemon: GET /metrics, made at each request from the same
// JSON that `status --json` prints. docs/METRICS.md has the names. The only file that knows
// prometheus-cpp, whose exceptions end there.
//
// A port that is taken is no reason to leave a mail spool down: then there are no metrics, and `up`
// and the log say why.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tools/ground/complaint.h"
#include "tools/ground/control.h"

namespace twinspool {

class Metrics {
   public:
    virtual ~Metrics() = default;
};

// `status` is called by the endpoint's threads, until the result is gone. `endpoint`: ADDR:PORT.
// Nothing if it is empty; a complaint if it cannot be had.
Outcome<std::unique_ptr<Metrics>> begin_metrics(const std::string& endpoint,
                                                std::function<Json()> status);

}  // namespace twinspool
