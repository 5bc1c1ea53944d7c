// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>
#include <spdlog/spdlog.h>

#include <array>
#include <ctime>
#include <exception>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace twinspool {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// A number of the JSON and what it is called here. `path`: keys with "." between.
struct Number {
    const char* path;
    const char* name;
    MetricType type;
    const char* help;
};

constexpr auto kGauge = MetricType::Gauge;
constexpr auto kCounter = MetricType::Counter;

// Of the volume, in either role.
constexpr Number kVolumeNumbers[] = {
    {"epoch", "twinspool_epoch", kGauge, "Number of the primary's reign"},
    {"snapshots.count", "twinspool_snapshots", kGauge, "Snapshots that there are"},
    {"snapshots.incomplete", "twinspool_snapshots_incomplete", kGauge,
     "Of these, taken while the standby had not everything"},
    {"snapshots.broken", "twinspool_snapshots_broken", kGauge,
     "Of these, whose history had to be given up"},
    // Primary.
    {"journal.appended_lsn", "twinspool_journal_appended_lsn", kGauge,
     "Last record of the journal"},
    {"journal.durable_lsn", "twinspool_journal_durable_lsn", kGauge,
     "Last record that is durable on the primary"},
    {"journal.committed_lsn", "twinspool_journal_committed_lsn", kGauge,
     "Last record that is durable wherever it is waited for"},
    {"journal.checkpoint_lsn", "twinspool_journal_checkpoint_lsn", kGauge,
     "Record up to which the backing file systems are synced"},
    {"journal.bytes", "twinspool_journal_bytes", kGauge, "Size of the journal's files"},
    {"journal.frames", "twinspool_journal_frames_total", kCounter,
     "Frames written since the daemon's start, each with one flush"},
    {"journal.limit", "twinspool_journal_limit_bytes", kGauge, "journal_limit"},
    {"seed.objects_done", "twinspool_seed_objects_done", kGauge,
     "Objects that the walk has passed"},
    {"seed.objects_total", "twinspool_seed_objects", kGauge, "Objects that the walk knows of"},
    {"seed.bytes_done", "twinspool_seed_done_bytes", kGauge, "Content that the walk has passed"},
    {"seed.bytes_total", "twinspool_seed_bytes", kGauge, "Content that the walk knows of"},
    {"seed.bytes_different", "twinspool_seed_different_bytes", kGauge,
     "Content that a resync found different"},
    {"seed.failed", "twinspool_seed_failed_objects", kGauge, "Objects that could not be told"},
    {"seed.seconds_left", "twinspool_seed_left_seconds", kGauge, "Estimate of what is left"},
    {"verify.last.differences", "twinspool_verify_differences", kGauge,
     "Differences that the last verify found"},
    {"verify.last.repaired", "twinspool_verify_repaired", kGauge,
     "Of these, repaired from the primary"},
    {"verify.last.objects", "twinspool_verify_objects", kGauge, "Objects that it compared"},
    {"verify.last.failed", "twinspool_verify_failed_objects", kGauge,
     "Objects that it could not compare"},
    // Standby.
    {"received_lsn", "twinspool_received_lsn", kGauge, "Last record received"},
    {"durable_lsn", "twinspool_durable_lsn", kGauge, "Last record durable on the standby"},
    {"applied_lsn", "twinspool_applied_lsn", kGauge, "Last record in the replica tree"},
    {"committed_lsn", "twinspool_committed_lsn", kGauge,
     "Last record that the standby knows to be committed"},
    {"received_records", "twinspool_received_records_total", kCounter,
     "Records received since the daemon's start"},
    {"received_bytes", "twinspool_received_bytes_total", kCounter, "Bytes of them, as they came"},
    {"applied_records", "twinspool_applied_records_total", kCounter,
     "Records applied since the daemon's start"},
    {"heard_seconds", "twinspool_primary_heard_seconds", kGauge,
     "Time since the primary was heard last"},
    {"connected", "twinspool_primary_connected", kGauge, "1: a primary is connected"},
    {"refused", "twinspool_refused_connections_total", kCounter,
     "Connections refused since the daemon's start"},
};

// Of each standby, as the primary sees it.
constexpr Number kStandbyNumbers[] = {
    {"connected", "twinspool_standby_connected", kGauge, "1: it is connected"},
    {"wait", "twinspool_standby_wait", kGauge, "1: commits are to wait for it"},
    {"resyncing", "twinspool_standby_resyncing", kGauge, "1: it is told everything anew, by hash"},
    {"durable_lsn", "twinspool_standby_durable_lsn", kGauge, "Last record durable there"},
    {"applied_lsn", "twinspool_standby_applied_lsn", kGauge, "Last record in its replica tree"},
    {"lag_records", "twinspool_standby_lag_records", kGauge, "Records that are not durable there"},
    {"lag_bytes", "twinspool_standby_lag_bytes", kGauge, "Bytes of them"},
    {"lag_seconds", "twinspool_standby_lag_seconds", kGauge,
     "Age of the oldest record that is not durable there"},
    {"catch_up", "twinspool_standby_catch_up_seconds", kGauge, "Estimate until it has caught up"},
    {"sent_records", "twinspool_standby_sent_records_total", kCounter,
     "Records sent since the daemon's start"},
    {"sent_bytes", "twinspool_standby_sent_bytes_total", kCounter, "Bytes of them, as they went"},
};

constexpr std::array kStates{"in-sync",   "catching-up", "behind",   "seeding",
                             "resyncing", "empty",       "degraded", "failed"};

using Labels = std::vector<ClientMetric::Label>;

const Json* at_path(const Json& json, std::string_view path) {
    const Json* at = &json;
    while (at != nullptr) {
        const auto dot = path.find('.');
        const auto found = at->find(std::string{path.substr(0, dot)});
        at = found == at->end() ? nullptr : &*found;
        if (dot == std::string_view::npos) return at;
        path.remove_prefix(dot + 1);
    }
    return at;
}

// Nothing if it is not known.
std::optional<double> number_at(const Json& json, std::string_view path) {
    const Json* at = at_path(json, path);
    if (at == nullptr) return std::nullopt;
    if (at->is_boolean()) return at->get<bool>() ? 1 : 0;
    return at->is_number() ? std::optional{at->get<double>()} : std::nullopt;
}

std::string text_at(const Json& json, std::string_view path) {
    const Json* at = at_path(json, path);
    return at != nullptr && at->is_string() ? at->get<std::string>() : "";
}

std::optional<double> time_at(const Json& json, std::string_view path) {
    std::tm fields{};
    if (::strptime(text_at(json, path).c_str(), "%Y-%m-%dT%H:%M:%S", &fields) == nullptr)
        return std::nullopt;
    return static_cast<double>(::timegm(&fields));
}

class Families {
   public:
    void add(const char* name, MetricType type, const char* help, const Labels& labels,
             double value) {
        if (families_.empty() || families_.back().name != name)
            families_.push_back({.name = name, .help = help, .type = type, .metric = {}});
        ClientMetric metric;
        metric.label = labels;
        (type == kCounter ? metric.counter.value : metric.gauge.value) = value;
        families_.back().metric.push_back(std::move(metric));
    }
    std::vector<MetricFamily> take() { return std::move(families_); }

   private:
    std::vector<MetricFamily> families_;
};

std::vector<MetricFamily> families_of(const Json& status) {
    Families families;
    const Labels volume{{"volume", text_at(status, "volume")}};
    const auto with = [&](const char* name, const std::string& value) {
        Labels labels = volume;
        labels.push_back({name, value});
        return labels;
    };
    auto info = with("role", text_at(status, "role"));
    info.push_back({"version", TWINSPOOL_VERSION});
    info.push_back({"mode", text_at(status, "mode")});
    families.add("twinspool_info", kGauge, "Always 1; the labels say what runs", info, 1);
    const auto state = text_at(status, "state");
    for (const char* each : kStates)
        families.add("twinspool_state", kGauge, "1 for the state that the volume is in",
                     with("state", each), state == each ? 1 : 0);
    for (const auto& each : kVolumeNumbers)
        if (const auto value = number_at(status, each.path))
            families.add(each.name, each.type, each.help, volume, *value);
    if (text_at(status, "role") == "standby")
        families.add("twinspool_trouble", kGauge, "1: the standby cannot apply", volume,
                     text_at(status, "trouble").empty() ? 0 : 1);
    if (const auto time = time_at(status, "snapshots.newest.time"))
        families.add("twinspool_snapshot_newest_timestamp_seconds", kGauge,
                     "When the newest snapshot was taken", volume, *time);
    if (const auto time = time_at(status, "snapshots.oldest.time"))
        families.add("twinspool_snapshot_oldest_timestamp_seconds", kGauge,
                     "When the oldest snapshot was taken", volume, *time);
    if (const auto time = time_at(status, "verify.last.time"))
        families.add("twinspool_verify_timestamp_seconds", kGauge, "When the last verify began",
                     volume, *time);
    const Json none = Json::array();
    const Json* standbys = at_path(status, "standbys");
    if (standbys == nullptr || !standbys->is_array()) standbys = &none;
    for (const auto& number : kStandbyNumbers)
        for (const auto& standby : *standbys)
            if (const auto value = number_at(standby, number.path))
                families.add(number.name, number.type, number.help,
                             with("standby", text_at(standby, "target")), *value);
    for (const auto& standby : *standbys)
        families.add("twinspool_standby_trouble", kGauge,
                     "1: it cannot apply, or cannot be reached",
                     with("standby", text_at(standby, "target")),
                     text_at(standby, "trouble").empty() ? 0 : 1);
    return families.take();
}

class Collector final : public prometheus::Collectable {
   public:
    explicit Collector(std::function<Json()> status) : status_(std::move(status)) {}
    [[nodiscard]] std::vector<MetricFamily> Collect() const override {
        try {
            return families_of(status_());
        } catch (const std::exception& error) {
            spdlog::error("could not collect metrics: {}", error.what());
            return {};
        }
    }

   private:
    std::function<Json()> status_;
};

class Endpoint final : public Metrics {
   public:
    Endpoint(const std::string& address, std::function<Json()> status)
        : collector_(std::make_shared<Collector>(std::move(status))), exposer_(address, kThreads) {
        exposer_.RegisterCollectable(collector_);
    }

   private:
    static constexpr std::size_t kThreads = 2;
    std::shared_ptr<Collector> collector_;
    prometheus::Exposer exposer_;  // goes first, and with it its threads
};

}  // namespace

Outcome<std::unique_ptr<Metrics>> begin_metrics(const std::string& endpoint,
                                                std::function<Json()> status) {
    if (endpoint.empty()) return std::unique_ptr<Metrics>{};
    try {
        std::unique_ptr<Metrics> metrics = std::make_unique<Endpoint>(endpoint, std::move(status));
        spdlog::info("metrics at http://{}/metrics", endpoint);
        return metrics;
    } catch (const std::exception& error) {
        return failure(
            "there are no metrics: could not listen at {} ({}); another program may use that port",
            endpoint, error.what());
    }
}

}  // namespace twinspool
