// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// What a file is that is not what its name promises.
///
/// Downloads that went wrong leave a few well-known things in place of a checkpoint's files. Naming them says at once
/// what to do, where "not a safetensors file" does not.
enum FileContent {
    /// Says what a file is, if it is one of those things.
    ///
    /// - Parameters:
    ///   - bytes: The file's content.
    ///   - path: The file, for the message.
    /// - Throws: `malformed` that names what the file is, and what to do.
    static func refuseStandIns(_ bytes: UnsafeRawBufferPointer, _ path: String) throws(CheckpointError) {
        guard let complaint = self.complaint(bytes) else { return }
        throw CheckpointError(code: .malformed, message: complaint, file: path)
    }

    /// Refuses a JSON text that begins with a byte order mark or is UTF-16 or UTF-32: Python and serde read UTF-8 alone.
    ///
    /// - Parameters:
    ///   - bytes: The text.
    ///   - path: The file, for the message.
    /// - Throws: `malformed` that names the encoding.
    static func refuseOtherEncodings(_ bytes: UnsafeRawBufferPointer, _ path: String) throws(CheckpointError) {
        guard let encoding = JSONText.otherEncoding(bytes) else { return }
        throw CheckpointError(
            code: .malformed,
            message: "is \(encoding), which the model's own tools refuse; save it as plain UTF-8",
            file: path
        )
    }

    private static func complaint(_ bytes: UnsafeRawBufferPointer) -> String? {
        guard !bytes.isEmpty else { return "is empty; fetch the file again" }
        var start = bytes.prefix(512)[...]
        if start.starts(with: [0xEF, 0xBB, 0xBF]) { start = start.dropFirst(3) }
        start = start.drop { $0 == 0x20 || (0x09...0x0D).contains($0) }
        let text = String(decoding: start.prefix(128), as: UTF8.self).lowercased()
        if text.hasPrefix("version https://git-lfs.github.com/spec/") {
            return
                "is a pointer of Git LFS, not the file that it stands for; run `git lfs pull` in the checkpoint's folder, or "
                + "fetch the file again"
        }
        if text.hasPrefix("<!doctype html") || text.hasPrefix("<html") {
            return "is an HTML page, such as an error or a login page saved under the file's name; fetch the file again"
        }
        return nil
    }
}
