// The core: three units that work at the same time (load, compute, store), each with a queue of commands of its own,
// and four memories between them: activations A, results R, weights W and the sums.
// Commands come in one stream, each says how many commands of the other units must be done before it may begin.
module core #(
    parameter int N = 8,        // input and output channels at once, a power of two, at least 4
    parameter int A_LOG2 = 12,  // words of N bytes
    parameter int R_LOG2 = 11,
    parameter int W_LOG2 = 11,
    parameter int ACC_LOG2 = 10  // words of N int32
) (
    input  logic           clk,
    input  logic           rst,
    input  logic           command_valid,
    output logic           command_ready,
    input  logic [  511:0] command,
    // memory, reading: a request is `read_words` words of N bytes, data come in the order of the requests
    output logic           read_valid,
    input  logic           read_ready,
    output logic [   31:0] read_address,
    output logic [   15:0] read_words,
    input  logic           data_valid,
    output logic           data_ready,
    input  logic [8*N-1:0] data,
    // memory, writing
    output logic           write_valid,
    input  logic           write_ready,
    output logic [   31:0] write_address,
    output logic           write_last,     // of a store
    output logic [8*N-1:0] write_data,
    input  logic           write_landed,   // a pulse: all of a store can be read again; at most 15 are under way
    output logic           idle,
    // for counters: what the array does in this cycle, and pulses
    output logic [    2:0] activity,
    output logic           load_done,
    output logic           compute_begun,
    output logic           compute_done,
    output logic           store_done
);
  localparam int L = $clog2(N);
  localparam int SUM = 16 + L;
  localparam logic [2:0] WORKS = 3'd0, NO_COMMAND = 3'd1, WAITS_LOAD = 3'd2, WAITS_COMPUTE = 3'd3, WAITS_STORE = 3'd4,
      WAITS_WEIGHTS = 3'd5, WAITS_OUTPUT = 3'd6, PAUSES = 3'd7;

  // ---- dispatch ----
  logic held_valid, load_push, compute_push, store_push, load_pop, compute_pop, store_pop;
  logic [511:0] held;
  logic [3:0] load_level, compute_level, store_level;
  core_types::transfer_t load_head, store_head;
  core_types::compute_t compute_head;
  core_types::counts_t done;
  assign load_push = held_valid && held[1:0] == core_types::UNIT_LOAD && !load_level[3];
  assign compute_push = held_valid && held[1:0] == core_types::UNIT_COMPUTE && !compute_level[3];
  assign store_push = held_valid && held[1:0] == core_types::UNIT_STORE && !store_level[3];
  assign command_ready = !held_valid;
  always_ff @(posedge clk) begin
    if (rst) held_valid <= 1'b0;
    else if (command_valid && command_ready) held_valid <= 1'b1;
    else if (load_push || compute_push || store_push) held_valid <= 1'b0;
    if (command_ready) held <= command;
    if (rst) done <= '0;
    else begin
      if (load_done) done.load <= done.load + 16'd1;
      if (compute_done) done.compute <= done.compute + 16'd1;
      if (store_done) done.store <= done.store + 16'd1;
    end
  end
  localparam int TRANSFER = 224;  // the upper words of a transfer are empty
  logic [TRANSFER-1:0] load_bits, store_bits;
  assign load_head = {288'b0, load_bits};
  assign store_head = {288'b0, store_bits};
  fifo #(.WIDTH(TRANSFER), .LOG2(3)) loads (
      .clk, .rst, .push(load_push), .tail(held[TRANSFER-1:0]), .pop(load_pop), .head(load_bits), .level(load_level)
  );
  fifo #(.WIDTH(512), .LOG2(3)) computes (
      .clk, .rst, .push(compute_push), .tail(held), .pop(compute_pop), .head(compute_head), .level(compute_level)
  );
  fifo #(.WIDTH(TRANSFER), .LOG2(3)) stores (
      .clk, .rst, .push(store_push), .tail(held[TRANSFER-1:0]), .pop(store_pop), .head(store_bits), .level(store_level)
  );
  logic [2:0] load_missing, compute_missing, store_missing;
  logic load_ready, compute_ready, store_ready;  // a cycle late, in which no unit begins with the next head
  always_ff @(posedge clk) begin
    load_ready <= !rst && load_level != '0 && load_missing == '0;
    compute_ready <= !rst && compute_level != '0 && compute_missing == '0;
    store_ready <= !rst && store_level != '0 && store_missing == '0;
  end
  missing of_load (.done, .waits(load_head.waits), .units(load_missing));
  missing of_compute (.done, .waits(compute_head.waits), .units(compute_missing));
  missing of_store (.done, .waits(store_head.waits), .units(store_missing));

  // ---- load ----
  logic a_taken, r_taken, load_a, load_r, load_w, load_idle;
  /* verilator lint_off UNUSEDSIGNAL */ // buffers are smaller than 16 bits can address
  logic [15:0] load_address, store_address, skip_address, w_address, a_address, acc_address, result_a, result_r;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [8*N-1:0] load_data;
  loader #(.N(N)) load (
      .clk, .rst, .ready(load_ready), .head(load_head), .pop(load_pop),
      .read_valid, .read_ready, .read_address, .read_words, .data_valid, .data_ready, .data,
      .a_taken, .r_taken, .write_a(load_a), .write_r(load_r), .write_w(load_w),
      .write_address(load_address), .write_data(load_data), .finished(load_done), .idle(load_idle)
  );

  // ---- compute: sequence ----
  logic issuer_free, pass_started, last_started, weights_soon, parameters_ready, output_busy, fetcher_idle;
  logic weights_load, weights_diagonal, parameter_load, in_picture, waits_parameters, waits_pause;
  logic [L-1:0] weights_row;
  logic [3:0] parameter_index;
  logic [7:0] padding;
  core_types::output_t settings;
  core_types::token_t token;
  weight_fetcher #(.N(N)) fetch (
      .clk, .rst, .ready(compute_ready), .head(compute_head), .issuer_free,
      .take(compute_pop), .output_busy, .pass_started, .last_started, .weights_soon, .parameters_ready,
      .read_address(w_address), .weights_load, .weights_diagonal, .weights_row, .parameter_load, .parameter_index, .idle(fetcher_idle)
  );
  issuer issue (
      .clk, .rst, .take(compute_pop), .head(compute_head), .weights_soon, .parameters_ready, .free(issuer_free),
      .pass_started, .last_started, .command_started(compute_begun), .settings, .token, .a_address, .acc_address,
      .in_picture, .padding, .waits_parameters, .waits_pause
  );

  // ---- compute: data ----
  logic write_a, write_r, skip_read, complete, ends, output_idle, in_picture_later;
  logic [7:0] padding_later;
  logic [8*N-1:0] a_data, r_data, w_data, activations, results;
  logic [SUM*N-1:0] sums;
  logic [32*N-1:0] totals;
  logic [core_types::TOKEN_BITS-1:0] tokens [0:L+5];
  core_types::token_t token_of_sums;
  logic [L+5:1] passing;
  logic [2:1] swaps;
  logic [ACC_LOG2-1:0] sum_address [0:L+5];
  ram #(.WIDTH(8*N), .LOG2(A_LOG2)) a (
      .clk, .write(load_a || write_a), .write_address(A_LOG2'(write_a ? result_a : load_address)),
      .write_data(write_a ? results : load_data), .read_address(A_LOG2'(a_address)), .read_data(a_data)
  );
  ram #(.WIDTH(8*N), .LOG2(W_LOG2)) w (
      .clk, .write(load_w), .write_address(W_LOG2'(load_address)), .write_data(load_data),
      .read_address(W_LOG2'(w_address)), .read_data(w_data)
  );
  ram #(.WIDTH(8*N), .LOG2(R_LOG2)) r (
      .clk, .write(load_r || write_r), .write_address(R_LOG2'(write_r ? result_r : load_address)),
      .write_data(write_r ? results : load_data),
      .read_address(R_LOG2'(skip_read ? skip_address : store_address)), .read_data(r_data)
  );
  assign tokens[0] = token;
  assign token_of_sums = tokens[L+5];
  assign sum_address[0] = ACC_LOG2'(acc_address);
  always_ff @(posedge clk) begin
    for (int k = 1; k <= L + 5; k++) begin
      tokens[k] <= rst ? '0 : tokens[k-1];
      sum_address[k] <= sum_address[k-1];
    end
    passing <= rst ? '0 : {passing[L+4:1], token.valid};
    swaps <= {swaps[1], token.swap};
    in_picture_later <= in_picture;
    padding_later <= padding;
    activations <= in_picture_later ? a_data : {N{padding_later}};
  end
  mac_array #(.N(N)) array (
      .clk, .activations, .swap(swaps[2]), .load(weights_load), .diagonal(weights_diagonal), .row(weights_row),
      .weights(w_data), .sums
  );
  accumulator #(.N(N), .WIDTH(SUM), .LOG2(ACC_LOG2)) accumulate (
      .clk, .token(token_of_sums), .address(sum_address[L+5]), .sums, .complete, .ends, .totals
  );
  output_side #(.N(N)) finish (
      .clk, .rst, .parameter_load, .parameter_index, .parameter_word(w_data), .begins(last_started), .settings,
      .complete, .ends, .totals, .skip_read, .skip_address, .skip(r_data), .a_taken, .r_taken, .write_a, .write_r,
      .a_address(result_a), .r_address(result_r), .results, .busy(output_busy), .finished(compute_done),
      .idle(output_idle)
  );

  // ---- store ----
  logic store_idle;
  storer #(.N(N)) store (
      .clk, .rst, .ready(store_ready), .head(store_head), .pop(store_pop),
      .r_taken(skip_read), .read_address(store_address), .read_data(r_data), .write_valid, .write_ready,
      .write_address, .write_last, .write_data, .write_landed, .finished(store_done), .idle(store_idle)
  );

  // ---- what an observer sees ----
  logic array_idle;
  always_comb begin
    array_idle = !token.valid && passing == '0;
    idle = !held_valid && load_level == '0 && compute_level == '0 && store_level == '0 && load_idle && fetcher_idle
        && issuer_free && array_idle && output_idle && store_idle;
    if (token.valid) activity = WORKS;
    else if (waits_parameters) activity = WAITS_OUTPUT;
    else if (waits_pause) activity = PAUSES;
    else if (!issuer_free) activity = WAITS_WEIGHTS;
    else if (compute_level == '0) activity = NO_COMMAND;
    else if (compute_missing[0]) activity = WAITS_LOAD;
    else if (compute_missing[1]) activity = WAITS_COMPUTE;
    else if (compute_missing[2]) activity = WAITS_STORE;
    else activity = WAITS_WEIGHTS;
  end
endmodule
