// N x N multipliers: a vector of N activations goes to N columns, each adds its N products in a tree of registers.
// Every column works on the same vector in the same cycle, so weights are exchanged in one cycle and nothing drains
// between passes. Sums leave log2(N) + 4 cycles after their activations came in.
module mac_array #(
    parameter int N = 8,
    localparam int L = $clog2(N),
    localparam int WIDTH = 16 + L
) (
    input  logic               clk,
    input  logic [    8*N-1:0] activations,
    input  logic               swap,          // the waiting weights take over for the activations of the next cycle
    input  logic               load,
    input  logic               diagonal,      // one word is the whole diagonal: lane c multiplies only channel c
    input  logic [      L-1:0] row,           // the input channel that the word belongs to
    input  logic [    8*N-1:0] weights,       // byte c: output channel c
    output logic [WIDTH*N-1:0] sums
);
  // what goes to many places goes there from registers of its own
  logic [8*N-1:0] word;
  logic [N-1:0] row_loads;
  logic swaps, word_diagonal;
  logic [8*N-1:0] waiting [0:N-1];
  logic [8*N-1:0] active [0:N-1];
  always_ff @(posedge clk) begin
    word <= weights;
    swaps <= swap;
    word_diagonal <= diagonal;
    for (int r = 0; r < N; r++) row_loads[r] <= load && (diagonal || row == L'(r));
  end
  for (genvar r = 0; r < N; r++) begin : g_row
    always_ff @(posedge clk) begin
      if (row_loads[r]) waiting[r] <= word_diagonal ? word & ((8*N)'(8'hff) << (8 * r)) : word;
      if (swaps) active[r] <= waiting[r];
    end
  end
  for (genvar c = 0; c < N; c++) begin : g_column
    // a heap: node k is the sum of nodes 2k and 2k+1, nodes N and up are products
    logic signed [WIDTH-1:0] node [1:2*N-1];
    logic [8*N-1:0] vector;
    copy #(.WIDTH(8*N)) own (.clk, .from(activations), .to(vector));
    for (genvar r = 0; r < N; r++) begin : g_product
      logic signed [15:0] product;
      multiplier own (.clk, .a(vector[8*r+:8]), .b(active[r][8*c+:8]), .product);
      assign node[N+r] = WIDTH'(product);
    end
    for (genvar k = 1; k < N; k++) begin : g_sum
      always_ff @(posedge clk) node[k] <= node[2*k] + node[2*k+1];
    end
    assign sums[WIDTH*c+:WIDTH] = node[1];
  end
endmodule
