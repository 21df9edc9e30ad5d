// SPDX-License-Identifier: Apache-2.0

/// The page of a gateway's HTTP listener: three files in source form, in the program itself.
package enum DoorPage {
    /// One of the files.
    package struct File: Sendable {
        /// Its address.
        package let path: String
        /// Its type.
        package let type: String
        /// What it holds.
        package let text: String
    }

    /// The page itself.
    package static let document = File(
        path: "/",
        type: "text/html; charset=utf-8",
        text: String(decoding: PackageResources.index_html, as: UTF8.self)
    )

    /// How it looks.
    package static let style = File(
        path: "/page.css",
        type: "text/css; charset=utf-8",
        text: String(decoding: PackageResources.page_css, as: UTF8.self)
    )

    /// What it does.
    package static let script = File(
        path: "/page.js",
        type: "text/javascript; charset=utf-8",
        text: String(decoding: PackageResources.page_js, as: UTF8.self)
    )

    /// What a browser may load for it: its own files, and nothing else (https://www.w3.org/TR/CSP3/).
    package static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        + "form-action 'none'; frame-ancestors 'none'"
}
