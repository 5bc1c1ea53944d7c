// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/image_path.h"

#include <sys/stat.h>

#include <algorithm>

namespace twinspool {
namespace {

const ImageRoot* root_of(const Image& image, std::string_view path) {
    for (const auto& root : image.roots())
        if (path.starts_with(root.path) &&
            (path.size() == root.path.size() || path[root.path.size()] == '/'))
            return &root;
    return nullptr;
}

}  // namespace

Result<std::optional<ImagePart>> find_part(Image& image, std::string_view path) {
    const ImageRoot* root = root_of(image, path);
    if (root == nullptr) return std::optional<ImagePart>{};
    ImagePart part{.path = std::string{path}, .root = root->path, .object = root->object};
    for (std::size_t at = root->path.size(); at < path.size();) {
        const std::size_t begin = at + 1;
        at = std::min(path.find('/', begin), path.size());
        const auto name = path.substr(begin, at - begin);
        TS_ASSIGN(const auto attributes, image.attributes(part.object));
        if (!S_ISDIR(attributes.mode) || name.empty() || name == "." || name == "..")
            return std::optional<ImagePart>{};
        part.parent = part.object;
        TS_ASSIGN(part.object, image.find(part.parent, name));
        if (part.object == kNoObject) return std::optional<ImagePart>{};
    }
    return std::optional{std::move(part)};
}

}  // namespace twinspool
