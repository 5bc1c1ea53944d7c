// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/reply.h"

#include <sys/statvfs.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "fuse/kernel/libfuse.h"
#include "fuse/kernel/stat_format.h"
#include "fuse/serve/serving.h"

namespace twinspool {
namespace {

template <typename... Cases>
struct Overloaded : Cases... {
    using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

double seconds(Answer::Keep keep) { return keep == Answer::Keep::kForever ? kForever_s : 0; }

void send_entry(Volume& volume, fuse_req* request, const Answer::Entry& entry) {
    const ObjectId id = entry.inode->id;
    fuse_entry_param param{};
    param.ino = raw(id);
    param.generation = 1;
    param.attr = stat_of(id, entry.attributes);
    param.attr_timeout = seconds(entry.keep);
    param.entry_timeout = kForever_s;
    // Counted before the kernel can forget it again.
    volume.inodes.remember(*entry.inode);
    if (fuse_reply_entry(request, &param) != 0) volume.inodes.forget(id, 1);
}

void send_no_entry(fuse_req* request) {
    fuse_entry_param param{};
    param.entry_timeout = kForever_s;
    fuse_reply_entry(request, &param);
}

void send_object(fuse_req* request, const Answer::Object& object) {
    struct stat attributes = stat_of(object.id, object.attributes);
    if (object.orphaned && attributes.st_nlink > 0) --attributes.st_nlink;
    fuse_reply_attr(request, &attributes, seconds(object.keep));
}

// Every reader gets its own listing from us: without the flags for it the kernel keeps none.
void send_opened(Volume& volume, fuse_req* request, const Answer::Opened& opened) {
    fuse_file_info file{};
    file.fh = opened.handle;
    if (fuse_reply_open(request, &file) != 0) volume.open_directories.close(opened.handle);
}

}  // namespace

// An answer that waits for commit. They are kept for the next, so that none is allocated in the
// long run.
class Reply::Waiter final : public CommitWaiter {
   public:
    static Waiter& make(Volume& volume, fuse_req* request, Answer answer) {
        Waiter* waiter = nullptr;
        {
            const std::lock_guard lock{kept_mutex()};
            if (!kept().empty()) {
                waiter = kept().back().release();
                kept().pop_back();
            }
        }
        if (waiter == nullptr) waiter = new Waiter;
        waiter->volume_ = &volume;
        waiter->request_ = request;
        waiter->answer_ = std::move(answer);
        return *waiter;
    }

    void answered(int error) override {
        if (error != 0)
            Reply{*volume_, request_}.error(EIO);
        else
            send(*volume_, request_, answer_);
        answer_ = nothing();  // it may hold an object
        std::unique_ptr<Waiter> self{this};
        const std::lock_guard lock{kept_mutex()};
        if (kept().size() < kKept) kept().push_back(std::move(self));
    }

   private:
    static constexpr std::size_t kKept = 256;
    static std::mutex& kept_mutex() {
        static std::mutex mutex;
        return mutex;
    }
    static std::vector<std::unique_ptr<Waiter>>& kept() {
        static std::vector<std::unique_ptr<Waiter>> waiters;
        return waiters;
    }
    Volume* volume_ = nullptr;
    fuse_req* request_ = nullptr;
    Answer answer_ = nothing();
};

void Reply::send(Volume& volume, fuse_req* request, const Answer& answer) {
    const RequestGoes goes{request};
    const Overloaded cases{
        [&](const Answer::Nothing&) { fuse_reply_err(request, 0); },
        [&](const Answer::NoEntry&) { send_no_entry(request); },
        [&](const Answer::Entry& entry) { send_entry(volume, request, entry); },
        [&](const Answer::Object& object) { send_object(request, object); },
        [&](const Answer::Count& count) { fuse_reply_write(request, count.count); },
        [&](const Answer::Data& data) { fuse_reply_buf(request, data.data, data.size); },
        [&](const Answer::Size& size) { fuse_reply_xattr(request, size.size); },
        [&](const Answer::Offset& offset) { fuse_reply_lseek(request, offset.offset); },
        [&](const Answer::Space& space) { fuse_reply_statfs(request, &space.space); },
        [&](const Answer::Opened& opened) { send_opened(volume, request, opened); },
    };
    std::visit(cases, answer.kind);
}

void Reply::error(int error) {
    const RequestGoes goes{request_};
    fuse_reply_err(std::exchange(request_, nullptr), error);
}

void Reply::answer(Answer&& answer, Lsn lsn) {
    Commit& commit = volume_->journal.commit();
    fuse_req* const request = std::exchange(request_, nullptr);
    // What was told to the standbys on the way of a listing is no change, and the answer's bytes
    // are in a buffer that is the thread's over /dev/fuse.
    if (commit.mode() != CommitMode::kEvery || lsn.value == 0 ||
        std::holds_alternative<Answer::Data>(answer.kind))
        send(*volume_, request, answer);
    else
        commit.wait(Waiter::make(*volume_, request, std::move(answer)), lsn);
}

void Reply::when_committed() {
    Commit& commit = volume_->journal.commit();
    const Lsn lsn = volume_->journal.appended();
    commit.wait(Waiter::make(*volume_, std::exchange(request_, nullptr), nothing()), lsn);
}

}  // namespace twinspool
