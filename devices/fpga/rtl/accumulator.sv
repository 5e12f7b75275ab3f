// int32 sums of up to 2**LOG2 pixels, N channels each. A vector of sums comes in every cycle; the old value is read
// two cycles before and the new one written two cycles after, so the same pixel may come again after five cycles.
module accumulator #(
    parameter int N = 8,
    parameter int WIDTH = 19,
    parameter int LOG2 = 10
) (
    input  logic               clk,
    input  core_types::token_t token,     // of the sums two cycles from now
    input  logic [   LOG2-1:0] address,
    input  logic [WIDTH*N-1:0] sums,
    output logic               complete,  // `totals` is a finished sum
    output logic               ends,      // the command's last vector has passed
    output logic [   32*N-1:0] totals
);
  /* verilator lint_off UNUSEDSIGNAL */ // a swap matters to the array only
  core_types::token_t token1, token2, token3;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [LOG2-1:0] address1, address2, address3, address4;
  logic write;
  logic [32*N-1:0] earlier;
  ram #(.WIDTH(32*N), .LOG2(LOG2)) partial (
      .clk, .write, .write_address(address4), .write_data(totals), .read_address(address), .read_data(earlier)
  );
  always_ff @(posedge clk) begin
    token1 <= token;
    token2 <= token1;
    token3 <= token2;
    address1 <= address;
    address2 <= address1;
    address3 <= address2;
    address4 <= address3;
    write <= token3.valid;
    complete <= token3.valid && token3.last;
    ends <= token3.valid && token3.ends;
  end
  for (genvar c = 0; c < N; c++) begin : g_lane
    // both parts are kept to be added, or one of them alone: the first, or the larger
    logic signed [31:0] old, old_later;
    logic signed [WIDTH-1:0] sum, sum_later;
    logic larger, keep_old, keep_sum;
    assign old = earlier[32*c+:32];
    assign sum = sums[WIDTH*c+:WIDTH];
    assign larger = 32'(sum) > old;
    always_ff @(posedge clk) begin
      sum_later <= sum;
      old_later <= old;
      keep_sum <= token2.first || !token2.maximum || larger;
      keep_old <= !token2.first && !(token2.maximum && larger);
      totals[32*c+:32] <= (keep_sum ? 32'(sum_later) : '0) + (keep_old ? old_later : '0);
    end
  end
endmodule
