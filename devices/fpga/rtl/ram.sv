// A memory with one write and one read port; what is read comes two cycles after its address (output register).
module ram #(
    parameter int WIDTH = 64,
    parameter int LOG2 = 10
) (
    input  logic             clk,
    input  logic             write,
    input  logic [ LOG2-1:0] write_address,
    input  logic [WIDTH-1:0] write_data,
    input  logic [ LOG2-1:0] read_address,
    output logic [WIDTH-1:0] read_data
);
  (* ram_style = "block" *) logic [WIDTH-1:0] cells [0:(1<<LOG2)-1];
  logic [WIDTH-1:0] read_cell;
  always_ff @(posedge clk) begin
    if (write) cells[write_address] <= write_data;
    read_cell <= cells[read_address];
    read_data <= read_cell;
  end
endmodule
