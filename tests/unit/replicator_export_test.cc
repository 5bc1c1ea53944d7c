// SPDX-License-Identifier: Apache-2.0
// What GNU tar makes of an export.
#include "replicator/past/export.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "plain_image.h"
#include "replicator_replica.h"
#include "replicator_trees.h"

namespace twinspool {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::Folder;
using test::Gardener;
using test::picture;
using test::PlainImage;

struct Scene {
    Folder folder{"/var/tmp"};
    std::string source = folder.path() + "/source";
    std::string out = folder.path() + "/out";
    std::string tar = folder.path() + "/x.tar";
    Scene() {
        fs::create_directory(source);
        fs::create_directory(out);
    }
    Result<ExportCounters> write(const std::string& below = "", const ExportOptions& options = {}) {
        PlainImage image{source, "/var/spool/mail"};
        const Fd fd{::open(tar.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
        std::optional<ImagePart> part;
        if (!below.empty()) {
            auto found = find_part(image, "/var/spool/mail" + below);
            TS_ASSERT(found.ok() && found->has_value());
            part = std::move(*found);
        }
        return export_image(image, part, fd.get(), options);
    }
    // What GNU tar says; empty if it is content.
    std::string extract() const {
        const std::string log = folder.path() + "/log";
        const auto command =
            "tar -x --warning=no-timestamp --warning=no-unknown-keyword --xattrs "
            "--xattrs-include='*' --acls --numeric-owner -p "
            "-C '" +
            out + "' -f '" + tar + "' 2>'" + log + "'";
        const int code = std::system(command.c_str());  // NOLINT
        std::ifstream file{log};
        std::string said{std::istreambuf_iterator<char>{file}, {}};
        return code == 0 ? said : said + " failed";
    }
};

test::Picture without_sockets(test::Picture all) {
    std::erase_if(all, [](const auto& each) {
        return each.second.starts_with("14") && each.second.find(' ') == 6;  // 0140000 and more
    });
    return all;
}

TEST(Export, GnuTarBringsEverythingBack) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Scene scene;
        Gardener{seed}.work(scene.source, 120);
        std::size_t left_out = 0;
        const auto done = scene.write("", {.on_left_out = [&](std::string_view) { ++left_out; }});
        ASSERT_TRUE(done.ok()) << done.error().text();
        ASSERT_EQ(scene.extract(), "") << "seed " << seed;
        const auto all = picture(scene.source);
        const auto expected = without_sockets(all);
        EXPECT_EQ(all.size() - expected.size(), left_out);
        EXPECT_EQ(done->members, expected.size());
        ASSERT_EQ(difference(expected, picture(scene.out + "/var/spool/mail")), "")
            << "seed " << seed;
    }
}

TEST(Export, APartBeginsWithItsOwnName) {
    Scene scene;
    fs::create_directories(scene.source + "/bob/cur");
    std::ofstream{scene.source + "/bob/cur/m"} << "text";
    ASSERT_TRUE(scene.write("/bob").ok());
    ASSERT_EQ(scene.extract(), "");
    EXPECT_EQ(difference(picture(scene.source + "/bob"), picture(scene.out + "/bob")), "");
    ASSERT_TRUE(scene.write("/bob/cur/m").ok());
    ASSERT_EQ(scene.extract(), "");
    EXPECT_TRUE(fs::exists(scene.out + "/m"));
}

TEST(Export, HolesTakeNoSpaceInIt) {
    Scene scene;
    const std::string path = scene.source + "/sparse";
    std::ofstream{path} << "head";
    fs::resize_file(path, std::uintmax_t{1} << 30);
    const Fd fd{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
    ASSERT_EQ(::pwrite(fd.get(), "middle", 6, 1 << 29), 6);
    std::ofstream{scene.source + "/nothing"} << "";
    fs::resize_file(scene.source + "/nothing", 1 << 20);
    ASSERT_TRUE(scene.write().ok());
    EXPECT_LT(fs::file_size(scene.tar), std::uintmax_t{1} << 20);
    ASSERT_EQ(scene.extract(), "");
    struct stat status {};
    const std::string back = scene.out + "/var/spool/mail/sparse";
    ASSERT_EQ(::lstat(back.c_str(), &status), 0);
    EXPECT_EQ(status.st_size, 1 << 30);
    EXPECT_LT(status.st_blocks, 1024);
    char text[6];
    const Fd read{::open(back.c_str(), O_RDONLY | O_CLOEXEC)};
    ASSERT_EQ(::pread(read.get(), text, 6, 1 << 29), 6);
    EXPECT_EQ(std::string(text, 6), "middle");
    EXPECT_EQ(fs::file_size(scene.out + "/var/spool/mail/nothing"), std::uintmax_t{1} << 20);
}

// An image that is given up in the middle.
class FailingImage : public PlainImage {
   public:
    using PlainImage::PlainImage;
    Result<std::size_t> read(ObjectId, std::uint64_t, std::span<std::byte>) override {
        return make_error(EIO, "read the history");
    }
};

TEST(Export, CutShortItIsNotTakenForWhole) {
    Scene scene;
    fs::create_directory(scene.source + "/a");
    std::ofstream{scene.source + "/b"} << "text";
    FailingImage image{scene.source, "/var/spool/mail"};
    {
        const Fd fd{::open(scene.tar.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
        const auto done = export_image(image, std::nullopt, fd.get(), {});
        ASSERT_FALSE(done.ok());
        EXPECT_EQ(done.error().code, EIO);
        EXPECT_NE(done.error().doing.find("var/spool/mail/b"), std::string::npos);
    }
    EXPECT_NE(scene.extract(), "");
}

TEST(Export, AReaderThatGoesAwayIsEpipe) {
    (void)std::signal(SIGPIPE, SIG_IGN);
    Scene scene;
    std::ofstream{scene.source + "/b"} << std::string(1 << 20, 'x');
    PlainImage image{scene.source, "/var/spool/mail"};
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ::close(ends[0]);
    const Fd fd{ends[1]};
    const auto done = export_image(image, std::nullopt, fd.get(), {});
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().code, EPIPE);
}

}  // namespace
}  // namespace twinspool
