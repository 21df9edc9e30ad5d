// SPDX-License-Identifier: Apache-2.0

#include <curl/curl.h>

// The library sets and reads options by variadic functions, which Swift does not see: here is one for each type.

/// Prepares the library for a process; once is enough.
static inline CURLcode switchyard_curl_begin(void) { return curl_global_init(CURL_GLOBAL_DEFAULT); }

static inline CURLcode switchyard_curl_set_number(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}

/// Sets a text, which the library copies, or NULL.
static inline CURLcode switchyard_curl_set_text(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}

/// Sets the headers, which stay the caller's and must live as long as the handle.
static inline CURLcode switchyard_curl_set_headers(CURL *handle, struct curl_slist *headers) {
    return curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
}

/// Sets memory of CURL_ERROR_SIZE bytes that an error's words go to.
static inline CURLcode switchyard_curl_set_errors(CURL *handle, char *memory) {
    return curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, memory);
}

/// Sets who takes the lines of heads, who takes bodies, who is asked every second whether to go on, and what they get.
static inline CURLcode switchyard_curl_set_receiver(
    CURL *handle, curl_write_callback head, curl_write_callback body, curl_xferinfo_callback tick, void *receiver) {
    CURLcode code = curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, head);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_HEADERDATA, receiver);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, body);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_WRITEDATA, receiver);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, tick);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_XFERINFODATA, receiver);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    return code;
}

/// Lets a handle speak HTTP and HTTPS only.
static inline CURLcode switchyard_curl_set_protocols(CURL *handle) {
#if LIBCURL_VERSION_NUM >= 0x075500
    return curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    return curl_easy_setopt(handle, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/// Reads a number; 0 where there is none.
static inline long switchyard_curl_number(CURL *handle, CURLINFO what) {
    long value = 0;
    return curl_easy_getinfo(handle, what, &value) == CURLE_OK ? value : 0;
}

/// Whether the connection has come about, with TLS where it has that.
static inline int switchyard_curl_was_connected(CURL *handle) {
    curl_off_t microseconds = 0;
    return curl_easy_getinfo(handle, CURLINFO_PRETRANSFER_TIME_T, &microseconds) == CURLE_OK && microseconds > 0;
}

/// Goes on with a body that was paused.
static inline CURLcode switchyard_curl_resume(CURL *handle) { return curl_easy_pause(handle, CURLPAUSE_CONT); }
