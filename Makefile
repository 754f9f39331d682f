# Chimera: `make demo` and `make test` do everything, dependencies included; `make help`.
CC      ?= cc
CXX     ?= c++
MODE    ?= release
# One tree of objects per mode; `release` is the product, `f64` the gradient-check build
# (cm_real = double), `asan` the sanitizer build, `clang` the release by the other compiler.
O       := build/$(MODE)
BIN     := $(if $(filter release,$(MODE)),build/bin,$(O)/bin)
T       := $(O)/test

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Werror
# Fuzzing wants clang, and Debian's clang brings no OpenMP: one thread, easier to repeat.
ifneq ($(filter fuzz clang,$(MODE)),)
override CC  := clang
override CXX := clang++
endif
ifeq ($(MODE),fuzz)
OMP := -Itests/fuzz/stub
WARN += -Wno-unknown-pragmas -Wno-source-uses-openmp -Wno-unused-variable \
        -Wno-unused-but-set-variable -Wno-unused-parameter
else
OMP := -fopenmp
endif
OPT.release := -O2
OPT.clang   := -O2
OPT.debug   := -O0 -DCM_DEBUG
OPT.f64     := -O2 -DCM_F64 -DCM_DEBUG
OPT.fuzz    := -O1 -DCM_DEBUG -fsanitize=fuzzer-no-link,address,undefined \
               -fno-sanitize-recover=undefined
OPT.asan    := -O1 -DCM_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined
COMMON  := -g -ffp-contract=off -fno-omit-frame-pointer $(OMP) -MMD -MP -Icore -Ieval -I. \
           $(WARN) $(OPT.$(MODE)) $(EXTRA)
CFLAGS  := -std=c11 -D_GNU_SOURCE -Wstrict-prototypes $(COMMON)
CXXFLAGS := -std=c++17 $(COMMON)
LDLIBS  := -lopenblas -lsentencepiece -lsentencepiece_train -lyaml -lcjson -lpcre2-8 -lzstd -lz \
           -lcrypto -lstdc++ -lm
LDFLAGS := $(filter -fopenmp,$(OMP)) $(filter -fsanitize%,$(OPT.$(MODE)))
ISA.avx2   := -mavx2 -mfma -mf16c
ISA.avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
ISA.avx512bf16 := $(ISA.avx512) -mavx512vnni -mavx512bf16
ISA.vnni   := $(ISA.avx512) -mavx512vnni
# Only files whose name ends in an instruction level get its flags.
isa      = $(foreach l,avx2 avx512 avx512bf16 vnni,$(if $(filter %_$(l).c,$(1)),$(ISA.$(l))))

CORE    := $(wildcard core/*/*.c) $(wildcard eval/*/*.c) $(wildcard data/*/*.c)
LIBO    := $(CORE:%.c=$(O)/%.o) $(patsubst %.cc,$(O)/%.o,$(wildcard core/*/*.cc))
TOOLS   := $(patsubst tools/%.c,$(BIN)/%,$(wildcard tools/*.c)) \
           $(patsubst data/%.c,$(BIN)/%,$(wildcard data/*.c))
TESTS   := $(patsubst tests/%.c,$(T)/%,$(wildcard tests/unit/*_test.c tests/grad/*_test.c \
           tests/golden/*_test.c tests/fault/*_test.c tests/interop/*_test.c))

BENCHES := $(patsubst bench/%.c,build/bench/%,$(filter-out bench/bench.c,$(wildcard bench/*.c)))

all: $(TOOLS) ## build every tool into build/bin/
# Benchmarks are compiled with the tests, so that they go on compiling.
tests-build: $(TESTS) $(T)/cli/mkresult $(if $(filter release,$(MODE)),$(BENCHES))

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
build/bench/%: $(O)/bench/%.o $(O)/bench/bench.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
# Vectors wider than the registers of this file's level pass only between inlined functions.
$(O)/core/quant/search_ref.o: CFLAGS += -Wno-psabi
# Over these unrolled products gcc's `combine` takes two minutes; of pairs only, and without
# variables to follow, a quarter of that, and the code is as fast.
ifeq ($(filter fuzz clang,$(MODE)),)
$(O)/core/kern/qmat_avx2.o: CFLAGS += -g1 --param max-combine-insns=2
endif
# The kernel tests bring the AVX-512 sources along, compiled on an emulation.
$(T)/unit/kern_test $(T)/unit/gemm_test: $(O)/tests/unit/emu512_avx2.o
$(T)/unit/kern_test: $(O)/tests/unit/kern_sweep64.o
$(O)/tests/unit/emu512_avx2.o: CFLAGS += -O1 -Wno-psabi -fno-sanitize=undefined
# Tests of the training loop share a tiny corpus and model.
$(T)/unit/trainer_test $(T)/unit/alloc_test $(T)/unit/ckpt_test $(T)/unit/lora_test $(T)/unit/data_test \
    $(T)/unit/plan_test $(T)/unit/moment_test $(T)/fault/train_test: \
    $(O)/tests/train_fixture.o
# The card's test rounds the inputs of products as llama.cpp does.
$(T)/golden/kl_test: LDFLAGS += -Wl,--wrap=cm_gemm,--wrap=cm_product,--wrap=cm_product1
# One program for every reader of outside bytes: make MODE=fuzz fuzz-build.
fuzz-build: $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(wildcard tests/fuzz/*_fuzz.c))
$(O)/fuzz/%: $(O)/tests/fuzz/%.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CXX) -fsanitize=fuzzer,address,undefined $^ $(LDLIBS) -o $@
# Programs the tests use: docs.c prints docs/ops.md, mkmodel.c makes random models,
# mkresult.c simulated evaluations, mkbroken.c spoilt models.
$(T)/docs: $(O)/tests/lint/docs.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(T)/interop/mkmodel: $(O)/tests/interop/mkmodel.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(T)/cli/mkresult: $(O)/tests/cli/mkresult.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(T)/regress/mkbroken: $(O)/tests/regress/mkbroken.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(T)/%: $(O)/tests/%.o $(O)/tests/t.o $(O)/libchimera.a
	@mkdir -p $(@D)
	@echo '  LINK  $@'
	@$(CC) $(LDFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -o $@

# ---- what people run -------------------------------------------------------------------

deps: ## install the packages needed (apt, as root or with sudo)
	@sh tests/deps.sh
demo: deps ## text to a GGUF file: generate a corpus, train, sample, export (TEXT=file: yours)
	@$(MAKE) --no-print-directory -j2 all
	@sh data/demo.sh
demo-chat: deps ## the demo, then conversations: SFT and DPO, judged on held-out questions
	@$(MAKE) --no-print-directory -j2 all
	@sh data/demo-chat.sh
STUDIES := noise win stability reasoning hacking collapse moe hybrid precision
studies: deps ## the studies of docs/studies, numbers and pictures (hours; study-noise ... one each)
	@$(MAKE) --no-print-directory -j2 all
	@for s in $(STUDIES); do sh configs/studies/$$s.sh || exit 1; done
$(STUDIES:%=study-%): study-%: deps
	@$(MAKE) --no-print-directory -j2 all
	@sh configs/studies/$*.sh
speedrun: deps ## time to a fixed loss: the recipe of configs/speedrun.yaml against tuned AdamW
	@$(MAKE) --no-print-directory -j2 all
	@sh configs/studies/speedrun.sh

# The double build runs what compares numbers; release runs everything else.
F64.tests := $(patsubst tests/%.c,build/f64/test/%,$(wildcard tests/grad/*_test.c) \
             tests/golden/model_test.c tests/golden/ops_test.c tests/golden/dpo_test.c \
             $(foreach t,ssd mixer attention moe xent nn,$(wildcard tests/unit/$(t)_test.c)))
REL.tests := $(filter-out $(T)/grad/% $(T)/interop/%,$(TESTS))
SCRIPTS   := $(wildcard tests/lint/*.sh) $(filter-out %/lib.sh,$(wildcard tests/cli/*.sh)) \
             $(filter-out %/lib.sh,$(wildcard tests/fault/*.sh))
test-deps:
	@sh tests/deps.sh test
INTEROP := $(patsubst %,tests/interop/%.sh,ggml types run chat lora)
MKMODEL := build/release/test/interop/mkmodel
test: test-deps ## set up, build and run every test; last line `N passed, N failed, N skipped`
	@$(MAKE) --no-print-directory -j2 all tests-build $(MKMODEL)
	@$(MAKE) --no-print-directory -j2 MODE=f64 tests-build
	@sh tests/run.sh $(SCRIPTS) $(F64.tests) $(REL.tests) $(INTEROP)
test-full: test ## also sanitizers, every kernel level, long fault loops, fuzzing, chimera-700m
	@sh tests/full.sh
interop: test-deps ## logits, tokens and greedy text against llama.cpp (node-llama-cpp)
	@$(MAKE) --no-print-directory -j2 all tests-build $(MKMODEL)
	@sh tests/run.sh $(INTEROP)
lint: all ## layers, style, generated documents
	@sh tests/run.sh $(wildcard tests/lint/*.sh)
bench: deps ## speed, into build/bench.json: products, ops, whole steps (QUICK=1: minutes)
	@$(MAKE) --no-print-directory -j2 all $(BENCHES)
	@sh bench/run.sh
types: all ## every type of one model, with cards: make types MODEL=runs/demo TEXT=heldout.txt [CALIBRATION=text]
	@sh bench/types.sh "$(MODEL)" "$(TEXT)" build/types $(if $(CALIBRATION),"$(CALIBRATION)")
docs: all $(T)/docs build/bench/tables ## write config.md, exit-codes.md, ops.md, METRICS.md, BENCHMARKS.md from the tables
	@$(BIN)/eval --help=markdown > docs/config.md
	@$(BIN)/eval --help=exit-markdown > docs/exit-codes.md
	@$(T)/docs > docs/ops.md
	@$(T)/docs metrics > $(T)/metrics.md
	@sed -i -e '/^<!-- eval.results.metrics.def/,/^<!-- end -->/{/^|/d}' \
	    -e '/^<!-- eval.results.metrics.def/r $(T)/metrics.md' docs/METRICS.md
	@build/bench/tables docs/BENCHMARKS.md > $(T)/benchmarks.md && cp $(T)/benchmarks.md docs/BENCHMARKS.md
ci: deps ## a frozen model to the last bit, a fresh one against five seeds (docs/REGRESSION.md)
	@$(MAKE) --no-print-directory -j2 all
	@sh eval/ci.sh frozen
	@sh eval/ci.sh fresh

PREFIX ?= /usr/local
install: all ## install the tools as PREFIX/bin/chimera-TOOL with man pages
	@for t in tokenize pretrain sft dpo quantize eval regress generate; do \
	    install -D -m 755 $(BIN)/$$t $(DESTDIR)$(PREFIX)/bin/chimera-$$t && \
	    install -d $(DESTDIR)$(PREFIX)/share/man/man1 && \
	    $(BIN)/$$t --help=man > $(DESTDIR)$(PREFIX)/share/man/man1/chimera-$$t.1 || exit 1; \
	done
	@install -d $(DESTDIR)$(PREFIX)/share/chimera/tasks
	@install -m 644 eval/tasks/*.yaml $(DESTDIR)$(PREFIX)/share/chimera/tasks
clean: ## remove build/
	rm -rf build
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | \
	    awk -F '\t' '{ printf "  %-10s %s\n", $$1, $$2 }'

.PHONY: all tests-build fuzz-build deps demo demo-chat speedrun studies $(STUDIES:%=study-%) test-deps test test-full interop lint bench docs ci \
        types install clean help
.PRECIOUS: $(O)/%.o
.DELETE_ON_ERROR:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
