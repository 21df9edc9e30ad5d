// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@Suite struct ErrorTextTests {
    @Test("A plain text is shown as it is", arguments: ["", "a b", "zwei\n\tZeilen", "日本 👩‍👧 e\u{301}"])
    func plain(text: String) { #expect(ErrorText.shown(text) == text) }

    @Test("Control characters are named, so that none reaches a terminal")
    func controls() {
        #expect(ErrorText.shown("a\u{1B}[2Jb\0\r\u{7F}\u{9B}c") == "a\\x1b[2Jb\\x0\\xd\\x7f\\x9bc")
    }

    @Test("A text is cut in bytes: one character can have any number of marks")
    func lengths() {
        let most = String(repeating: "x", count: ErrorText.mostBytes)
        #expect(ErrorText.shown(most) == most)
        for long in [
            most + "x", "e" + String(repeating: "\u{301}", count: 9_000), String(repeating: "\u{1B}", count: 4_096),
        ] {
            let shown = ErrorText.shown(long)
            #expect(shown.utf8.count <= ErrorText.mostBytes && shown.utf8.count > ErrorText.mostBytes - 16)
            #expect(shown.hasSuffix("..."))
        }
    }
}
