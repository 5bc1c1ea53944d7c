// SPDX-License-Identifier: Apache-2.0
// Trees on the disk for the tests of what reads images: made and changed at random from a seed, and
// looked at as restore means "the same".
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace twinspool::test {

// Path below the directory ("" is itself) → everything that a restore must bring back, as text:
// type, owner, mode, mtime, size, content, holes of 64 KiB, target, device, xattrs, ACLs, and the
// first name of the same inode.
using Picture = std::map<std::string, std::string>;
Picture picture(const std::string& directory);
// The lines in which they differ, for messages.
std::string difference(const Picture& a, const Picture& b);

// Puts things of every kind into the directory; what stands at a name is left, replaced or removed.
class Gardener {
   public:
    explicit Gardener(std::uint64_t seed) : random_(seed) {}
    void work(const std::string& directory, int steps);

   private:
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    std::string name();
    std::string folder(const std::string& directory);
    std::string something(const std::string& directory);
    void make(const std::string& path);
    void make_file(const std::string& path);
    void dress(const std::string& path);
    std::mt19937_64 random_;
};

}  // namespace twinspool::test
