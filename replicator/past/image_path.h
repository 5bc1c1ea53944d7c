// SPDX-License-Identifier: Apache-2.0
// ImagePart: an object of an image, found by its path. Symbolic links are not followed: a path
// leads through directories only. Values, and a free function for any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "journal/base/result.h"
#include "journal/delta/image.h"

namespace twinspool {

struct ImagePart {
    std::string path;  // absolute, as programs see it
    std::string root;  // the path of the volume's directory that it is in
    ObjectId object{};
    ObjectId parent = kNoObject;  // kNoObject: it is a directory of the volume itself
    [[nodiscard]] bool is_root() const { return parent == kNoObject; }
    [[nodiscard]] std::string_view name() const {
        return std::string_view{path}.substr(path.rfind('/') + 1);
    }
    // From the root downwards, without a slash at either end; empty for the root itself.
    [[nodiscard]] std::string_view below_root() const {
        return is_root() ? std::string_view{} : std::string_view{path}.substr(root.size() + 1);
    }
};

// Nothing if the image has no such object. `path` is absolute, without a slash at its end.
Result<std::optional<ImagePart>> find_part(Image& image, std::string_view path);

}  // namespace twinspool
