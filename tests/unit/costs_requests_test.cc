// SPDX-License-Identifier: Apache-2.0
// The same from the request's bytes to the reply's: libfuse is given what the kernel would send
// over /dev/fuse, and its replies go nowhere but to here.
#include <linux/fuse.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "fuse/kernel/libfuse.h"
#include "fuse/serve/handlers.h"
#include "tests/unit/costs.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

class CostsOfRequests : public FuseTest {
   protected:
    void SetUp() override {
        FuseTest::SetUp();
        if (IsSkipped()) return;
        service = std::make_unique<Service>(*volume);
        char name[] = "twinspool";
        char* words[] = {name, nullptr};
        fuse_args arguments = FUSE_ARGS_INIT(1, words);
        session =
            ::fuse_session_new(&arguments, &handlers(), sizeof(fuse_lowlevel_ops), service.get());
        ASSERT_NE(session, nullptr);
        int ends[2]{};
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        kernel.reset(ends[0]);
        const timeval patience{.tv_sec = 10};
        ASSERT_EQ(::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
        // As with a mount made elsewhere; the session closes it.
        const std::string connection = "/dev/fd/" + std::to_string(ends[1]);
        ASSERT_EQ(::fuse_session_mount(session, connection.c_str()), 0);
        request(FUSE_INIT, ObjectId{},
                fuse_init_in{.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION});
        ASSERT_TRUE(service->initialized);
    }
    void TearDown() override {
        if (session != nullptr) ::fuse_session_destroy(session);
        service.reset();
        FuseTest::TearDown();
    }

    // Of this thread until it has handed the request on or answered it, and of all until the answer
    // is there.
    struct Made {
        std::uint64_t here = 0;
        std::uint64_t everywhere = 0;
    };
    // Allocations for a request, which has been answered with `error`. `rest` is what follows the
    // arguments: names with their zeros, or data.
    template <typename Arguments>
    Made request(std::uint32_t opcode, ObjectId node, const Arguments& arguments,
                 const std::string& rest = {}, int error = 0) {
        std::string bytes(sizeof(fuse_in_header), '\0');
        if constexpr (!std::is_empty_v<Arguments>)
            bytes.append(reinterpret_cast<const char*>(&arguments), sizeof arguments);
        bytes += rest;
        const fuse_in_header header{.len = static_cast<std::uint32_t>(bytes.size()),
                                    .opcode = opcode,
                                    .unique = ++unique,
                                    .nodeid = raw(node)};
        std::memcpy(bytes.data(), &header, sizeof header);
        fuse_buf buffer{.size = bytes.size(), .mem = bytes.data()};
        reply = {};
        const Made before{allocations, allocations_everywhere};
        ::fuse_session_process_buf(session, &buffer);
        const std::uint64_t here = allocations;
        const ssize_t got = ::recv(kernel.get(), &reply, sizeof reply, 0);
        if (got < static_cast<ssize_t>(sizeof reply.header))
            throw std::runtime_error{"no reply to opcode " + std::to_string(opcode)};
        const Made made{here - before.here, allocations_everywhere - before.everywhere};
        EXPECT_EQ(reply.header.unique, unique);
        EXPECT_EQ(-reply.header.error, error) << "opcode " << opcode;
        return made;
    }

    struct Reply {
        fuse_out_header header;
        fuse_entry_out entry;  // if it is one
    };
    std::unique_ptr<Service> service;
    fuse_session* session = nullptr;
    Fd kernel;  // where its end would be
    Reply reply{};
    std::uint64_t unique = 0;
};

struct None {};

std::string name_of(int number) {
    return "1700000000.M" + std::to_string(number) + "P2.mail.example.org" + '\0';
}

// libfuse allocates each request that comes over /dev/fuse (not those over io_uring).
constexpr std::uint64_t kRequest = 1;
constexpr std::uint64_t kInode = 1;
constexpr std::uint64_t kWaiter = 1;
constexpr std::uint64_t kFrame = 2;  // who waits for a commit seals it: the frame and its count

TEST_F(CostsOfRequests, ADeliveryAllocatesItsRequestsAndOneInode) {
    const ObjectId tmp = create("tmp", root(), S_IFDIR | 0755);
    const ObjectId fresh = create("new", root(), S_IFDIR | 0755);
    const std::string data(2048, 'x');
    const std::string capability = std::string{"security.capability"} + '\0';
    std::array<std::uint64_t, 8> most{};
    for (int i = -kWarmUp; i < kTimes; ++i) {
        const std::string name = name_of(i);
        std::array<std::uint64_t, 8> now{};
        now[0] = request(FUSE_GETATTR, tmp, fuse_getattr_in{}).here;
        now[1] = request(FUSE_LOOKUP, tmp, None{}, name).here;
        EXPECT_EQ(reply.entry.nodeid, 0);
        now[2] = request(FUSE_MKNOD, tmp, fuse_mknod_in{.mode = S_IFREG | 0600}, name).here;
        const ObjectId object{reply.entry.nodeid};
        now[3] = request(FUSE_GETXATTR, object, fuse_getxattr_in{}, capability, ENODATA).here;
        now[4] = request(FUSE_WRITE, object, fuse_write_in{.size = 2048}, data).here;
        now[5] = request(FUSE_FSYNC, object, fuse_fsync_in{}).here;
        now[6] = request(FUSE_LOOKUP, fresh, None{}, name).here;
        now[7] =
            request(FUSE_RENAME2, tmp, fuse_rename2_in{.newdir = raw(fresh)}, name + name).here;
        for (std::size_t at = 0; i >= 0 && at < now.size(); ++at)
            most[at] = std::max(most[at], now[at]);
    }
    // The waiter of the one before may not be back yet when the thread that answered it is slow.
    EXPECT_LE(most[5], kRequest + kFrame + kWaiter);
    most[5] = kRequest;
    const std::array<std::uint64_t, 8> expected{kRequest, kRequest, kRequest + kInode, kRequest,
                                                kRequest, kRequest, kRequest,          kRequest};
    EXPECT_EQ(most, expected);
}

// On average of many: the journal's frames are among them. What leaves its thread is kept, with a
// copy of its data, and waits in a queue; a listing opens its directory and has a buffer.
TEST_F(CostsOfRequests, OneThatGoesToThePoolAllocatesAFewTimes) {
    const ObjectId file = create("file");
    volume->pool.start(2);
    const std::string data(2 * kSmallWriteBytes, 'x');
    const fuse_write_in write{.size = static_cast<std::uint32_t>(data.size())};
    const fuse_read_in list{.size = 4096};
    const auto average = [](const std::function<Made()>& operation) {
        std::uint64_t sum = 0;
        for (int i = -kWarmUp; i < kTimes; ++i)
            if (const Made made = operation(); i >= 0) sum += made.everywhere;
        return static_cast<double>(sum) / kTimes;
    };
    const double written = average([&] { return request(FUSE_WRITE, file, write, data); });
    const double listed = average([&] { return request(FUSE_READDIRPLUS, root(), list); });
    volume->pool.stop();
    std::printf("a large write %.2f, a listing %.2f allocations\n", written, listed);
    EXPECT_GE(written, kRequest + 1);
    EXPECT_LE(written, kRequest + 4);
    EXPECT_LE(listed, kRequest + 6);
}

}  // namespace
}  // namespace twinspool::test
