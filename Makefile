# Chimera: `make demo` and `make test` do everything, dependencies included; `make help`.
CC      ?= cc
CXX     ?= c++
MODE    ?= release
# One tree of objects per mode; `release` is the product, `f64` the gradient-check build
# (cm_real = double), `asan` the sanitizer build.
O       := build/$(MODE)
BIN     := $(if $(filter release,$(MODE)),build/bin,$(O)/bin)
T       := $(O)/test

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Werror
OPT.release := -O2
OPT.debug   := -O0 -DCM_DEBUG
OPT.f64     := -O2 -DCM_F64 -DCM_DEBUG
OPT.asan    := -O1 -DCM_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined
COMMON  := -g -ffp-contract=off -fno-omit-frame-pointer -fopenmp -MMD -MP -Icore -I. \
           $(WARN) $(OPT.$(MODE)) $(EXTRA)
CFLAGS  := -std=c11 -D_GNU_SOURCE -Wstrict-prototypes $(COMMON)
CXXFLAGS := -std=c++17 $(COMMON)
LDLIBS  := -lopenblas -lsentencepiece -lsentencepiece_train -lyaml -lcjson -lzstd -lz \
           -lcrypto -lstdc++ -lm
LDFLAGS := -fopenmp $(filter -fsanitize%,$(OPT.$(MODE)))
ISA.avx2   := -mavx2 -mfma -mf16c
ISA.avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
# Only files whose name ends in an instruction level get its flags.
isa      = $(foreach l,avx2 avx512,$(if $(filter %_$(l).c,$(1)),$(ISA.$(l))))

CORE    := $(wildcard core/*/*.c) $(wildcard eval/*.c) $(wildcard data/*/*.c)
LIBO    := $(CORE:%.c=$(O)/%.o) $(patsubst %.cc,$(O)/%.o,$(wildcard core/*/*.cc))
TOOLS   := $(patsubst tools/%.c,$(BIN)/%,$(wildcard tools/*.c)) \
           $(patsubst data/%.c,$(BIN)/%,$(wildcard data/*.c))
TESTS   := $(patsubst tests/%.c,$(T)/%,$(wildcard tests/unit/*_test.c tests/grad/*_test.c \
           tests/golden/*_test.c tests/fault/*_test.c))

all: $(TOOLS) ## build every tool into build/bin/
tests-build: $(TESTS)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC    $<'
	@$(CC) $(CFLAGS) $(call isa,$<) -c $< -o $@
$(O)/%.o: %.cc
	@mkdir -p $(@D)
	@echo '  CXX   $<'
	@$(CXX) $(CXXFLAGS) -c $< -o $@
$(O)/libchimera.a: $(LIBO)
	@rm -f $@
	@ar rcs $@ $^
$(BIN)/%: $(O)/tools/%.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(BIN)/%: $(O)/data/%.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
build/bench/%: $(O)/bench/%.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
# The kernel tests bring the AVX-512 sources along, compiled on an emulation.
$(T)/unit/kern_test $(T)/unit/gemm_test: $(O)/tests/unit/emu512_avx2.o
$(T)/unit/kern_test: $(O)/tests/unit/kern_sweep64.o
$(O)/tests/unit/emu512_avx2.o: CFLAGS += -O1 -Wno-psabi
# Tests of the training loop share a tiny corpus and model.
$(T)/unit/trainer_test $(T)/unit/ckpt_test $(T)/unit/data_test $(T)/fault/train_test: \
    $(O)/tests/train_fixture.o
$(T)/%: $(O)/tests/%.o $(O)/tests/t.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LDFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -o $@

clean: ## remove build/
	rm -rf build
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/' | sort

.PHONY: all tests-build clean help
.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
