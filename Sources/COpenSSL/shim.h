// SPDX-License-Identifier: Apache-2.0

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

// The library's own names are macros and variadic functions, which Swift does not see.

/// Makes an ECDSA key over P-256; NULL where the library cannot.
static inline EVP_PKEY *switchyard_p256_key(void) { return EVP_EC_gen("P-256"); }

/// The bytes in a memory BIO; they belong to it.
static inline long switchyard_bio_bytes(BIO *bio, char **bytes) { return BIO_get_mem_data(bio, bytes); }

/// Adds a name to a list, which owns it from then on; 0 where it does not fit.
static inline int switchyard_names_push(GENERAL_NAMES *names, GENERAL_NAME *name) {
    return sk_GENERAL_NAME_push(names, name);
}

/// Makes an extension from a constant in the notation of x509v3_config(5), which refers to nothing else.
static inline X509_EXTENSION *switchyard_extension(int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, NULL, NULL, NULL, NULL, 0);
    X509V3_set_ctx_nodb(&context);
    return X509V3_EXT_nconf_nid(NULL, &context, nid, value);
}
