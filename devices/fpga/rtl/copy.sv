// Registers of one place's own, for what many places read at once. Tools would make one of several that are the same;
// then the way from one end of the chip to the other is in one cycle with whatever follows.
(* keep_hierarchy = "yes" *)
module copy #(
    parameter int WIDTH = 8
) (
    input  logic             clk,
    input  logic [WIDTH-1:0] from,
    output logic [WIDTH-1:0] to
);
  always_ff @(posedge clk) to <= from;
endmodule
