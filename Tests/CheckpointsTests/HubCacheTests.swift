// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Checkpoints

@Suite struct HubCacheTests {
    private func makeCache() throws -> (TemporaryFolder, String) {
        let folder = try TemporaryFolder()
        let model = "hf/hub/models--google--switch-base-8"
        let snapshot = try folder.makeFolder("\(model)/snapshots/abc123")
        _ = try folder.makeFolder("\(model)/snapshots/def456")
        _ = try folder.makeFolder("\(model)/refs/refs/pr")
        try folder.write("abc123\n", to: "\(model)/refs/main")
        try folder.write("def456", to: "\(model)/refs/refs/pr/5")
        try folder.write("../../../..", to: "\(model)/refs/escape")
        return (folder, snapshot)
    }

    @Test func foldersAreTakenAsTheyAre() throws {
        let folder = try TemporaryFolder()
        #expect(try HubCache.resolve(folder.path, environment: [:]) == folder.path)
    }

    @Test(arguments: ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
    func namesAreFoundInEveryCache(variable: String) throws {
        let (folder, snapshot) = try self.makeCache()
        let value: String
        switch variable {
        case "HF_HOME": value = "\(folder.path)/hf"
        case "XDG_CACHE_HOME":
            _ = try folder.makeFolder("xdg/huggingface")
            try symlink("\(folder.path)/hf/hub", at: "\(folder.path)/xdg/huggingface/hub")
            value = "\(folder.path)/xdg"
        case "HOME":
            _ = try folder.makeFolder("home/.cache/huggingface")
            try symlink("\(folder.path)/hf/hub", at: "\(folder.path)/home/.cache/huggingface/hub")
            value = "\(folder.path)/home"
        default: value = "\(folder.path)/hf/hub"
        }
        let found = try HubCache.resolve("google/switch-base-8", environment: [variable: value])
        #expect(FileSystem.resolved(found) == FileSystem.resolved(snapshot))
        #expect(HubCache.displayName(of: found) == "google/switch-base-8@abc123")
    }

    @Test func revisionsAreFollowed() throws {
        let (folder, snapshot) = try self.makeCache()
        let environment = ["HF_HOME": "\(folder.path)/hf"]
        #expect(try HubCache.resolve("google/switch-base-8@abc123", environment: environment) == snapshot)
        #expect(try HubCache.resolve("google/switch-base-8@refs/pr/5", environment: environment).hasSuffix("/def456"))
    }

    @Test(arguments: [
        "google/switch-base-16", "google/switch-base-8@nope", "google/switch-base-8@escape",
        "google/switch-base-8@../main", "../x",
        "", "a/b/c", "google/../switch-base-8", "google/switch base",
    ])
    func whatIsNotThereIsNamed(name: String) throws {
        let (folder, _) = try self.makeCache()
        let error = failure {
            _ = try HubCache.resolve(name, environment: ["HF_HOME": "\(folder.path)/hf", "HOME": "/nowhere"])
        }
        #expect(error?.code == .notFound)
        #expect(error?.message.contains("the folder \(name)") == true)
        if name == "google/switch-base-16" {
            #expect(
                error?.message.contains("\(folder.path)/hf/hub/models--google--switch-base-16 (revision main)") == true
            )
            #expect(error?.message.contains("/nowhere/.cache/huggingface/hub/models--google--switch-base-16") == true)
        }
    }
}

private func symlink(_ target: String, at path: String) throws {
    try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: target)
}
