// SPDX-License-Identifier: Apache-2.0

#ifndef SWITCHYARD_PEERS_REPORT_H
#define SWITCHYARD_PEERS_REPORT_H

#include <chrono>
#include <functional>
#include <iostream>
#include <stdexcept>
#include <string>

#include <grpcpp/grpcpp.h>

// The outcome of each check, printed at the end as one line of JSON: {"name": "pass" or what went wrong}.
class Report {
public:
    void run(const std::string &name, const std::function<void()> &body) {
        std::string outcome = "pass";
        try {
            body();
        } catch (const std::exception &error) {
            outcome = error.what();
        }
        line += (line.empty() ? "{" : ", ") + quoted(name) + ": " + quoted(outcome);
    }

    void print() const { std::cout << (line.empty() ? "{" : line) << "}" << std::endl; }

private:
    static std::string quoted(const std::string &text) {
        std::string out = "\"";
        for (unsigned char c : text) {
            if (c == '"' || c == '\\') out += '\\';
            out += c < 0x20 ? ' ' : static_cast<char>(c);
        }
        return out + "\"";
    }

    std::string line;
};

inline void expect(bool condition, const std::string &what) {
    if (!condition) throw std::runtime_error(what);
}

inline void expect_status(const grpc::Status &status, grpc::StatusCode code) {
    expect(status.error_code() == code,
           "status " + std::to_string(status.error_code()) + " instead of " + std::to_string(code) + ": " +
               status.error_message());
}

inline void expect_ok(const grpc::Status &status) { expect_status(status, grpc::StatusCode::OK); }

inline void set_deadline(grpc::ClientContext &context, std::chrono::milliseconds patience) {
    context.set_deadline(std::chrono::system_clock::now() + patience);
}

#endif
