// SPDX-License-Identifier: Apache-2.0
#include "fuse/kernel/process.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace twinspool {
namespace {

constexpr int kNeeded[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,
                           CAP_FSETID, CAP_SETUID,       CAP_SETGID,          CAP_SYS_ADMIN};

class Capabilities {
   public:
    static Result<Capabilities> own() {
        Capabilities own;
        if (::syscall(SYS_capget, &own.header_, own.sets_.data()) != 0)
            return last_error("read the process's capabilities");
        return own;
    }
    [[nodiscard]] bool effective(int capability) const {
        return (sets_[word(capability)].effective & bit(capability)) != 0;
    }
    void drop(int capability) {
        __user_cap_data_struct& set = sets_[word(capability)];
        set.effective &= ~bit(capability);
        set.permitted &= ~bit(capability);
        set.inheritable &= ~bit(capability);
    }
    Status apply() {
        if (::syscall(SYS_capset, &header_, sets_.data()) != 0)
            return last_error("give up a capability");
        return {};
    }

   private:
    static std::size_t word(int capability) { return static_cast<std::size_t>(capability) / 32; }
    static std::uint32_t bit(int capability) {
        return std::uint32_t{1} << (static_cast<std::uint32_t>(capability) % 32);
    }
    __user_cap_header_struct header_{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets_{};
};

// A thread begins as whom its parent acted for (libfuse's workers make each other), so the kernel
// is asked: an impossible id changes nothing and returns the present one.
struct Acting {
    uid_t uid = static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1)));
    gid_t gid = static_cast<gid_t>(::setfsgid(static_cast<gid_t>(-1)));
};
thread_local Acting acting;

}  // namespace

Status prepare_process() {
    ::umask(0);
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)::setrlimit(RLIMIT_NOFILE, &files);
    }
    TS_ASSIGN(Capabilities own, Capabilities::own());
    for (const int capability : kNeeded)
        if (!own.effective(capability))
            return make_error(EPERM, "run without capability {} (root is needed)", capability);
    // Needs CAP_SYS_RESOURCE itself, so it comes before that is given up.
    Status warning;
    if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
        warning = last_error("mark the process as one that others' writeback depends on");
    if (::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0)
        return last_error("keep capabilities while acting for other users");
    if (::prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1)
        (void)::prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0);
    (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_SYS_RESOURCE, 0, 0);
    own.drop(CAP_SYS_RESOURCE);
    TS_TRY(own.apply());
    return warning;
}

void act_as(const Caller& caller) {
    if (acting.gid != caller.gid) ::setfsgid(caller.gid);
    if (acting.uid != caller.uid) ::setfsuid(caller.uid);
    acting = {caller.uid, caller.gid};
}

void become_background_thread() {
    sched_param none{};
    (void)::sched_setscheduler(0, SCHED_BATCH, &none);
    constexpr int kWhoProcess = 1;
    constexpr int kClassIdle = 3;
    constexpr int kClassShift = 13;
    (void)::syscall(SYS_ioprio_set, kWhoProcess, 0, kClassIdle << kClassShift);
}

void name_thread(const char* name) { (void)::pthread_setname_np(::pthread_self(), name); }

}  // namespace twinspool
