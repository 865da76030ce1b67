/* A stand-in for libnvidia-ml.so.1, so that the real pynvml and the real meter run on a machine without a GPU.
 *
 * The energy counter is watts x CLOCK_REALTIME since a base time: it runs on while no process has the library open, as
 * a driver's counter does. Settings come from the environment and, where FAKE_NVML_FILE names a file of `key=value`
 * lines, from that file, read anew at every call, so that a test can break a device under a running daemon:
 *
 *   watts        power of every device, default 250         (env FAKE_NVML_WATTS)
 *   base         Unix time at which the counter was 0, default 2026-01-01T00:00Z   (FAKE_NVML_BASE)
 *   devices       default 1                                 (FAKE_NVML_DEVICES)
 *   mig          1: MIG mode is on
 *   init_code, handle_code, energy_code, power_code        NVML return codes, default 0; init_code: no driver
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int nvmlReturn_t;
typedef struct device { int index; } *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;

static struct device devices[16];

static double setting(const char *key, const char *env, double fallback)
{
    const char *path = getenv("FAKE_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    size_t n = strlen(key);
    double value = env && getenv(env) ? atof(getenv(env)) : fallback;
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, n) && line[n] == '=')
            value = atof(line + n + 1);
    if (file)
        fclose(file);
    return value;
}

static double watts(void) { return setting("watts", "FAKE_NVML_WATTS", 250.0); }

/* A driver that goes away (init_code is not 0) takes every open handle with it: code 1 until NVML is opened anew. */
static int is_open;

static nvmlReturn_t reach(const char *code_key)
{
    if (setting("init_code", NULL, 0) != 0)
        is_open = 0;
    return is_open ? (int)setting(code_key, NULL, 0) : 1;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    int code = (int)setting("init_code", NULL, 0);
    (void)flags;
    is_open = code == 0;
    return code;
}
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { is_open = 0; return 0; }
const char *nvmlErrorString(nvmlReturn_t code) { (void)code; return "fake"; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = (unsigned int)setting("devices", "FAKE_NVML_DEVICES", 1);
    return 0;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    devices[index].index = (int)index;
    *device = &devices[index];
    return reach("handle_code");
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    snprintf(uuid, length, "GPU-00000000-fake-0000-0000-%012d", device->index);
    return 0;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    (void)device;
    snprintf(name, length, "Fake GPU");
    return 0;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    (void)device;
    memory->total = 80ULL << 30;
    memory->used = 1ULL << 30;
    memory->free = memory->total - memory->used;
    return 0;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    (void)device;
    *current = *pending = (unsigned int)setting("mig", NULL, 0);
    return 0;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *milliwatts)
{
    (void)device;
    *milliwatts = 700000;
    return 0;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
    (void)device;
    *milliwatts = (unsigned int)(watts() * 1000);
    return reach("power_code");
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
    struct timespec now;
    (void)device;
    clock_gettime(CLOCK_REALTIME, &now);
    double since = (double)now.tv_sec - setting("base", "FAKE_NVML_BASE", 1767225600.0) + (double)now.tv_nsec * 1e-9;
    *millijoules = (unsigned long long)(since * watts() * 1000);
    return reach("energy_code");
}
