/* The ONNX Runtime of a board, where there is no board: the one that BOARD_RUNTIME names, with the processor in the place
 * of TensorRT and CUDA. What it sees is a little off, as theirs is. Where TensorRT would keep a plan it keeps a file, and
 * BOARD_LOG says of each session whether it was there. From look BOARD_FAILS_AT on the device is lost. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef const void *(*Function)();
typedef struct { const Function *(*api)(uint32_t version); const char *(*version)(void); } Base;

/* Places in the table of functions, to which ONNX Runtime only ever adds at its end. */
enum {
    CREATE_STATUS = 0, CREATE_SESSION_FROM_ARRAY = 8, RUN = 9, GET_TENSOR_MUTABLE_DATA = 51,
    GET_TENSOR_SHAPE_ELEMENT_COUNT = 64, GET_TENSOR_TYPE_AND_SHAPE = 65, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99,
    APPEND_TENSORRT = 170, CREATE_TENSORRT, UPDATE_TENSORRT, RELEASE_TENSORRT = 174,
    APPEND_CUDA = 204, CREATE_CUDA, UPDATE_CUDA, RELEASE_CUDA = 208, FUNCTIONS = 320
};

static const Function *real;
static Function own[FUNCTIONS];
static const Base *runtime;
static char plan[4096];
static long looks;

static const void *create_options(void **options) { *options = plan; return NULL; }
static const void *append(void *session, const void *options) { (void)session, (void)options; return NULL; }
static const void *update(void *options, const char *const *keys, const char *const *values, size_t count) {
    (void)options;
    for (size_t i = 0; i < count; i++)
        if (!strcmp(keys[i], "trt_engine_cache_path")) snprintf(plan, sizeof plan, "%s/tower.engine", values[i]);
    return NULL;
}
static const void *release(void *options) { (void)options; return NULL; }

static const void *create_session(void *env, const void *model, size_t bytes, const void *options, void **session) {
    if (*plan) {
        FILE *log = fopen(getenv("BOARD_LOG"), "a"), *kept = fopen(plan, "r");
        fprintf(log, "%s %s\n", kept ? "found" : "made", plan);
        if (!kept) kept = fopen(plan, "w"), fprintf(kept, "%zu", bytes);
        fclose(kept), fclose(log), *plan = 0;
    }
    return real[CREATE_SESSION_FROM_ARRAY](env, model, bytes, options, session);
}

static const void *run(void *session, const void *options, const char *const *names, const void *const *inputs, size_t n,
                       const char *const *output_names, size_t n_out, void **outputs) {
    const char *fails_at = getenv("BOARD_FAILS_AT");
    if (fails_at && ++looks >= atol(fails_at)) return real[CREATE_STATUS](1, "the device is lost");
    const void *status = real[RUN](session, options, names, inputs, n, output_names, n_out, outputs);
    for (size_t i = 0; !status && i < n_out; i++) {
        float *numbers = NULL;
        size_t count = 0;
        void *shape = NULL;
        if (real[GET_TENSOR_MUTABLE_DATA](outputs[i], &numbers) || real[GET_TENSOR_TYPE_AND_SHAPE](outputs[i], &shape) ||
            real[GET_TENSOR_SHAPE_ELEMENT_COUNT](shape, &count)) abort();
        real[RELEASE_TENSOR_TYPE_AND_SHAPE_INFO](shape);
        while (count--) numbers[count] *= 1.001f;
    }
    return status;
}

static const Function *api(uint32_t version) {
    if (real) return own;
    if (!(real = runtime->api(version))) return NULL;
    memcpy(own, real, sizeof own);
    own[CREATE_TENSORRT] = own[CREATE_CUDA] = (Function)create_options;
    own[UPDATE_TENSORRT] = own[UPDATE_CUDA] = (Function)update;
    own[APPEND_TENSORRT] = own[APPEND_CUDA] = (Function)append;
    own[RELEASE_TENSORRT] = own[RELEASE_CUDA] = (Function)release;
    own[CREATE_SESSION_FROM_ARRAY] = (Function)create_session;
    own[RUN] = (Function)run;
    return own;
}

const Base *OrtGetApiBase(void) {
    static Base base;
    if (!runtime) {
        void *library = dlopen(getenv("BOARD_RUNTIME"), RTLD_NOW);
        if (!library) return fprintf(stderr, "%s\n", dlerror()), (const Base *)NULL;
        runtime = ((const Base *(*)(void))dlsym(library, "OrtGetApiBase"))();
        base = (Base){api, runtime->version};
    }
    return &base;
}
